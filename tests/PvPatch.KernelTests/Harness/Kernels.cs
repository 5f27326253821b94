namespace PvPatch.KernelTests.Harness;

/// <summary>The kernels the tests use: one for every way Linux has patched paravirt sites.</summary>
public static class Kernels
{
    /// <summary>5.10: sites in .parainstructions with clobbers, inline instructions from a table in the kernel.</summary>
    public static PackageRequest Bullseye { get; } = new("bullseye", "linux-image-amd64");

    /// <summary>6.1: sites in .parainstructions, inline instructions from alternatives.</summary>
    public static PackageRequest Bookworm { get; } = new("bookworm", "linux-image-amd64");

    /// <summary>6.12: every site is an alternative with the direct-call flag.</summary>
    public static PackageRequest Trixie { get; } = new("trixie", "linux-image-amd64");

    /// <summary>7.x: as 6.12, with a table of its own for locks.</summary>
    public static PackageRequest Sid { get; } = new("sid", "linux-image-amd64");

    /// <summary>6.1 for i386.</summary>
    public static PackageRequest BookwormI386 { get; } = new("bookworm", "linux-image-686-pae", "i386");
}
