namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The traces of one boot: the kernel image in memory at both <see cref="BootPoint"/>s and what the guest reported.
/// The machine itself is gone by then.
/// </summary>
public sealed class BootedKernel
{
    /// <summary>Link address of the image's first byte, and with it where it is dumped from: 16 MiB above the offset.</summary>
    private const ulong ImageStart = 0x100_0000;

    /// <summary>Enough for any Debian kernel ([_text, _end) is 60 to 70 MiB); the real end is known only later.</summary>
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

    /// <summary>[_text, _end) when all text is patched and the init sections still stand.</summary>
    public KernelMemory AfterPatching { get; }

    /// <summary>[_text, _end) once user space runs.</summary>
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

        ulong text = report.Symbol("_text");
        ulong end = report.Symbol("_end");
        if (text != start || end <= start || end - start > MostImageBytes)
        {
            throw new InvalidOperationException(
                $"The kernel lies at {text:x}..{end:x}, not within {MostImageBytes >> 20} MiB from {start:x}.");
        }

        int length = (int)(end - start);
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
