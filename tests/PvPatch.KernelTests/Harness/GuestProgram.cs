namespace PvPatch.KernelTests.Harness;

/// <summary>
/// A command that a guest runs once user space is up, and the files it needs; its output is in <see cref="GuestReport.Output"/>.
/// </summary>
internal sealed class GuestProgram
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(30);

    // By path in the guest. Ordered, so that a directory comes before what is in it.
    private readonly SortedDictionary<string, string> _files = new(StringComparer.Ordinal);

    /// <summary>A script for busybox's shell, whose commands are on the path.</summary>
    public required string Script { get; init; }

    /// <summary>The files: path in the guest, without a slash in front, and path here.</summary>
    public IReadOnlyDictionary<string, string> Files => _files;

    public GuestProgram Add(string guestPath, string path)
    {
        _files[guestPath.TrimStart('/')] = path;
        return this;
    }

    /// <summary>A program or library of this machine at its own path, with every library it is linked with.</summary>
    public GuestProgram AddLinked(string path)
    {
        Add(path, path);

        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
        foreach (string line in ExternalTool.Run("ldd", [path], s_timeout).Output.Split('\n'))
        {
            string? library = line.Split(' ', StringSplitOptions.TrimEntries).FirstOrDefault(static word => word.StartsWith('/'));
            if (library is not null && File.Exists(library))
            {
                Add(library, library);
            }
        }

        return this;
    }

    /// <summary>The .NET runtime that runs this test, at its own path.</summary>
    /// <returns>The path of <c>dotnet</c> in the guest.</returns>
    public string AddRuntime()
    {
        string runtime = Path.GetDirectoryName(typeof(object).Assembly.Location)!;
        string root = Path.GetFullPath(Path.Combine(runtime, "../../.."));
        string host = Directory.GetFiles(Path.Combine(root, "host/fxr"), "libhostfxr.so", SearchOption.AllDirectories)
            .Order(StringComparer.Ordinal).Last();
        string dotnet = Path.Combine(root, "dotnet");
        AddLinked(dotnet);
        AddLinked(host);
        foreach (string file in Directory.GetFiles(runtime))
        {
            // Debuggers, tracers and cryptography are of no use there and want libraries of their own.
            string name = Path.GetFileName(file);
            if (name is "libcoreclr.so" or "libclrjit.so" or "libSystem.Native.so" or "libhostpolicy.so")
            {
                AddLinked(file);
            }
            else if (!name.EndsWith(".so", StringComparison.Ordinal))
            {
                Add(file, file);
            }
        }

        return dotnet;
    }

    /// <summary>Writes the files, with the directories they are in.</summary>
    public void Write(CpioArchive archive, IEnumerable<string> existing)
    {
        HashSet<string> made = [.. existing];
        foreach ((string guestPath, string path) in _files)
        {
            for (int slash = guestPath.IndexOf('/', StringComparison.Ordinal); slash >= 0; slash = guestPath.IndexOf('/', slash + 1))
            {
                if (made.Add(guestPath[..slash]))
                {
                    archive.AddDirectory(guestPath[..slash]);
                }
            }

            archive.AddExecutable(guestPath, File.ReadAllBytes(path));
        }

        archive.AddExecutable("program", System.Text.Encoding.ASCII.GetBytes(Script.ReplaceLineEndings("\n")));
    }
}
