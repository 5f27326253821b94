namespace PvPatch.Linux.Tests.Support;

/// <summary>A folder of its own for one test, gone afterwards.</summary>
internal sealed class TestFolder : IDisposable
{
    private readonly string _path = Directory.CreateTempSubdirectory("pvpatch-test-").FullName;

    public string Path => _path;

    public string File(string name) => System.IO.Path.Combine(_path, name);

    public string File(string name, byte[] content)
    {
        string path = File(name);
        System.IO.File.WriteAllBytes(path, content);
        return path;
    }

    /// <summary>A file that may be run.</summary>
    public void Program(string name, string content)
    {
        string path = File(name, System.Text.Encoding.ASCII.GetBytes(content));
        if (!OperatingSystem.IsWindows())
        {
            System.IO.File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }
    }

    public void Dispose() => Directory.Delete(_path, recursive: true);
}
