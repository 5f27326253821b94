namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The traces of one boot: the kernel image in memory at both <see cref="BootPoint"/>s and what the guest reported.
/// The machine itself is gone by then.
/// </summary>
public sealed class BootedKernel
{
    /// <summary>Physical address of a kernel that was not moved: CONFIG_PHYSICAL_START, 16 MiB everywhere in Debian.</summary>
    private const ulong ImageStart = 0x100_0000;

    /// <summary>Enough for any Debian kernel (60 to 70 MiB); the real end is known only later.</summary>
    private const int MostImageBytes = 128 << 20;

    private BootedKernel(
        string imagePath, MachineOptions options, KernelMemory afterPatching, KernelMemory ready, GuestReport report, string console)
    {
        ImagePath = imagePath;
        Options = options;
        AfterPatching = afterPatching;
        Ready = ready;
        Report = report;
        ConsoleText = console;
    }

    /// <summary>The file that was booted: a bzImage or an ELF.</summary>
    public string ImagePath { get; }

    /// <summary>The Debian package it came from; null for a file of another origin.</summary>
    public DebianKernel? Package { get; private init; }

    /// <summary>How it was booted.</summary>
    public MachineOptions Options { get; }

    /// <summary>[_text, __bss_stop) when all text is patched and the init sections still stand.</summary>
    public KernelMemory AfterPatching { get; }

    /// <summary>[_text, __bss_stop) once user space runs.</summary>
    public KernelMemory Ready { get; }

    /// <summary>Symbols, processor and log as the guest saw them.</summary>
    public GuestReport Report { get; }

    /// <summary>The console up to <see cref="BootPoint.Ready"/>.</summary>
    public string ConsoleText { get; }

    /// <summary>Boots a kernel up to user space.</summary>
    /// <param name="imagePath">A bzImage or an ELF.</param>
    /// <param name="options">The machine.</param>
    /// <param name="directory">Where the dumps go; the caller deletes it.</param>
    /// <param name="package">The package the image came from.</param>
    internal static BootedKernel Boot(string imagePath, MachineOptions options, string directory, DebianKernel? package)
    {
        ulong start = options.ImageOffset + ImageStart;
        string earlyPath = Path.Combine(directory, "after-patching");
        using QemuMachine machine = QemuMachine.Start(imagePath, options);
        machine.RunTo(BootPoint.AfterPatching);
        machine.SaveKernel(start, MostImageBytes, earlyPath);
        machine.RunTo(BootPoint.Ready);
        GuestReport report = machine.ReadReport();

        // The guest's own word on where it lies; that its symbols agree is what makes link addresses readable.
        ulong code = report.PhysicalRange("Kernel code").Start;
        ulong end = report.PhysicalRange("Kernel bss").End;
        if (code != ImageStart || report.Symbol("_text") != start || end - code > MostImageBytes)
        {
            throw new InvalidOperationException(
                $"The kernel lies at {code:x}..{end:x} with _text {report.Symbol("_text"):x}, not at {ImageStart:x} and {start:x}.");
        }

        int length = (int)(end - code);
        using (FileStream early = File.OpenWrite(earlyPath))
        {
            early.SetLength(length);
        }

        KernelMemory ready = machine.SaveKernel(start, length, Path.Combine(directory, "ready"));
        return new BootedKernel(
            imagePath, options, new KernelMemory(earlyPath, start), ready, report, machine.ConsoleText)
        {
            Package = package,
        };
    }
}
