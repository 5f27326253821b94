using PvPatch.Tests.Shared;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// What a kernel test calls before it starts. Something missing skips the test, unless PVPATCH_REQUIRE_TOOLS=1 says that here
/// everything has to be present.
/// </summary>
public static class Require
{
    /// <summary>The means to fetch a Debian package: apt, dpkg-deb and the archive's keys.</summary>
    public static void PackageFetching()
    {
        Tool("apt-get", "apt");
        Tool("apt-cache", "apt");
        Tool("dpkg-deb", "dpkg");
        AnyFile("the keys of the Debian archive", "debian-archive-keyring", AptRoot.Keyring);
    }

    /// <summary>The means to boot a kernel: QEMU, its firmware and a static busybox.</summary>
    public static void KernelBooting()
    {
        Tool("qemu-system-x86_64", "qemu-system-x86");
        Tool("nice", "coreutils");
        AnyFile(
            "the firmware of the virtual machine",
            "seabios",
            "/usr/share/seabios/bios-256k.bin",
            "/usr/share/qemu/bios-256k.bin");
        Busybox();
    }

    /// <summary>A command on the search path.</summary>
    /// <param name="command">The command's file name.</param>
    /// <param name="debianPackage">The Debian package that brings it.</param>
    public static void Tool(string command, string debianPackage)
    {
        if (Requirement.FindProgram(command) is null)
        {
            Missing($"The command '{command}' is missing; Debian package {debianPackage} brings it.");
        }
    }

    /// <summary>Runs a step and turns its <see cref="TestEnvironmentException"/> into a skip or a failure.</summary>
    public static T Available<T>(Func<T> step)
    {
        ArgumentNullException.ThrowIfNull(step);
        try
        {
            return step();
        }
        catch (TestEnvironmentException exception)
        {
            Missing(exception.Message);
            throw;
        }
    }

    /// <summary>Ends the test: skipped, or failed where everything is demanded.</summary>
    /// <param name="sentence">What is missing and what would bring it.</param>
    public static void Missing(string sentence) => Requirement.Missing(sentence);

    /// <summary>The program that the distribution unpacks a kernel with, and the product too.</summary>
    public static void Unpacking(string imagePath)
    {
        if (BzImage.Decompressor(imagePath) is (string tool, string debianPackage))
        {
            Tool(tool, debianPackage);
        }
    }

    /// <summary>A static busybox.</summary>
    public static void Busybox() => AnyFile("a static busybox", "busybox-static", GuestInitramfs.HostBusybox);

    private static void AnyFile(string what, string debianPackage, params ReadOnlySpan<string> candidates)
    {
        foreach (string candidate in candidates)
        {
            if (File.Exists(candidate))
            {
                return;
            }
        }

        Missing($"The file {candidates[0]} ({what}) is missing; Debian package {debianPackage} brings it.");
    }
}
