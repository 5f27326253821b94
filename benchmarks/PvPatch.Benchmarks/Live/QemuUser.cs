using System.Diagnostics;
using System.Runtime.InteropServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>QEMU's user-mode emulator for RISC-V: a whole process for each program, and what the processors spent on it.</summary>
internal sealed unsafe class QemuUser
{
    public const string Name = "qemu-riscv64";

    private const int Children = -1; // RUSAGE_CHILDREN: those that ended and were waited for

    private QemuUser(string version) => Version = version;

    /// <summary>The first line of its version.</summary>
    public string Version { get; }

    /// <summary>The emulator on PATH; <see langword="null"/> where there is none.</summary>
    public static QemuUser? Find()
    {
        try
        {
            return new QemuUser(Run("--version").Output.Split('\n')[0]);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    /// <summary>Runs a program from its start to its exit.</summary>
    /// <param name="path">The ELF file.</param>
    /// <returns>What it wrote and gave to exit, and the time of its process: microseconds of a processor, user and system.</returns>
    public (string Output, int ExitCode, double Microseconds) Execute(string path)
    {
        double before = TimeOfChildren();
        (string output, int exitCode) = Run(path);
        return (output, exitCode, TimeOfChildren() - before);
    }

    private static (string Output, int ExitCode) Run(string argument)
    {
        using Process process = Process.Start(new ProcessStartInfo(Name, [argument]) { RedirectStandardOutput = true })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (output, process.ExitCode);
    }

    private static double TimeOfChildren()
    {
        Usage usage = default;
        return GetUsage(Children, &usage) == 0
            ? (usage.UserSeconds + usage.SystemSeconds) * 1e6 + usage.UserMicroseconds + usage.SystemMicroseconds
            : throw new InvalidOperationException("getrusage failed");
    }

    [DllImport("libc", EntryPoint = "getrusage")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int GetUsage(int who, Usage* usage);

    /// <summary>struct rusage.</summary>
    private struct Usage
    {
        public long UserSeconds;
        public long UserMicroseconds;
        public long SystemSeconds;
        public long SystemMicroseconds;
        public fixed long Others[14];
    }
}
