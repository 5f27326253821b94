using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Tool.Tests.Support;

/// <summary>Kernel files for one test, in a folder of their own.</summary>
internal sealed class KernelFiles : IDisposable
{
    private readonly TestFolder _folder = new();

    public KernelFiles()
    {
        Kernel = SyntheticKernel.Complete();
        Bytes = Kernel.Build();
        Vmlinux = Write("vmlinux", Bytes);
    }

    public SyntheticKernel Kernel { get; }

    public byte[] Bytes { get; }

    /// <summary>A small kernel in the form of 6.1: a site for every slot, and four more, three of which have alternatives.</summary>
    public string Vmlinux { get; }

    public string Path(string name) => _folder.File(name);

    public string Write(string name, byte[] content) => _folder.File(name, content);

    public string Write(string name, string content) => Write(name, System.Text.Encoding.UTF8.GetBytes(content));

    /// <summary>The same kernel as a bzImage with gzip inside.</summary>
    public string Vmlinuz() => Write("vmlinuz", TestBzImage.Build(TestBzImage.Gzip(Bytes)));

    public IReadOnlyList<string> Names() =>
        [.. Directory.GetFileSystemEntries(_folder.Path).Select(static p => System.IO.Path.GetFileName(p)).Order(StringComparer.Ordinal)];

    public void Dispose() => _folder.Dispose();
}
