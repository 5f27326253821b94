using System.Runtime.InteropServices;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The traces of one boot: the kernel image in memory at both <see cref="BootPoint"/>s and what the guest reported.
/// The machine itself is gone by then.
/// </summary>
public sealed class BootedKernel
{
    /// <summary>Physical address of a kernel that was not moved: CONFIG_PHYSICAL_START, 16 MiB everywhere in Debian.</summary>
    internal const ulong ImageStart = 0x100_0000;

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

    /// <summary>The ELF core of the machine at <see cref="AfterPatching"/>; null without <see cref="MachineOptions.Core"/>.</summary>
    public string? AfterPatchingCore { get; private init; }

    /// <summary>The ELF core of the machine at <see cref="Ready"/>; null without <see cref="MachineOptions.Core"/>.</summary>
    public string? ReadyCore { get; private init; }

    /// <summary>How far KASLR moved the kernel: what is added to a link address to get the one it has in this boot.</summary>
    public ulong Slide => AfterPatching.Start - (Options.ImageOffset + ImageStart);

    /// <summary>How often the guest asked for a hypervisor's CPUID leaves and was told about one.</summary>
    public int HypervisorAnswers { get; private init; }

    /// <summary>Symbols, processor and log as the guest saw them.</summary>
    public GuestReport Report { get; }

    /// <summary>The console up to <see cref="BootPoint.Ready"/>.</summary>
    public string ConsoleText { get; }

    /// <summary>The 64-bit words of a table, such as pv_ops: from its symbol up to the next one.</summary>
    public ulong[] Words(string table, BootPoint point = BootPoint.AfterPatching)
    {
        ulong start = Report.Symbol(table);
        ulong end = Report.Symbols.Values.Where(address => address > start).Min();
        KernelMemory memory = point == BootPoint.Ready ? Ready : AfterPatching;
        byte[] bytes = memory.ReadKernel(start, (int)(end - start) / sizeof(ulong) * sizeof(ulong));
        return MemoryMarshal.Cast<byte, ulong>(bytes).ToArray();
    }

    /// <summary>Boots a kernel up to user space.</summary>
    /// <param name="imagePath">A bzImage or an ELF.</param>
    /// <param name="options">The machine.</param>
    /// <param name="directory">Where the dumps go; the caller deletes it.</param>
    /// <param name="package">The package the image came from.</param>
    /// <param name="symbols">Link addresses of its symbols, from another boot; null has the guest report them.</param>
    internal static BootedKernel Boot(
        string imagePath,
        MachineOptions options,
        string directory,
        DebianKernel? package,
        IReadOnlyDictionary<string, ulong>? symbols = null)
    {
        string earlyPath = Path.Combine(directory, "after-patching");
        string readyPath = Path.Combine(directory, "ready");
        using QemuMachine machine = QemuMachine.Start(imagePath, options, symbols);
        machine.RunTo(BootPoint.AfterPatching);
        ulong start = machine.FindKernel();
        int mapped = machine.SaveKernel(start, MostImageBytes, earlyPath);
        string? earlyCore = SaveCore(machine, options, $"{earlyPath}.core");
        machine.RequireInitSections(BootPoint.AfterPatching);

        machine.RunTo(BootPoint.Ready);
        GuestReport report = machine.ReadReport();
        (ulong code, int length) = Extent(report, options, start, mapped);
        using (FileStream early = File.OpenWrite(earlyPath))
        {
            early.SetLength(length);
        }

        if (options.Xen is null)
        {
            machine.Physical.Save(code, length, readyPath);
        }
        else
        {
            // The freed init sections may have gone to other uses, which their old addresses do not reach any more.
            machine.SaveKernel(start, length, readyPath);
        }

        BootedKernel kernel = new(
            imagePath,
            options,
            new KernelMemory(earlyPath, start),
            new KernelMemory(readyPath, start),
            report,
            machine.ConsoleText)
        {
            Package = package,
            AfterPatchingCore = earlyCore,
            ReadyCore = SaveCore(machine, options, $"{readyPath}.core"),
            HypervisorAnswers = machine.HypervisorAnswers,
        };
        if (symbols is not null)
        {
            kernel.RequireOwnSymbols();
        }

        return kernel;
    }

    /// <summary>Refuses symbols of another kernel: what they call the banner has to be the first line of the log.</summary>
    private void RequireOwnSymbols()
    {
        ReadOnlySpan<byte> banner = AfterPatching.ReadKernel(Report.Symbol("linux_banner"), 256);
        int end = banner.IndexOf((byte)'\n');
        if (end < 8 || !Report.Log.Contains(System.Text.Encoding.ASCII.GetString(banner[..end]), StringComparison.Ordinal))
        {
            throw new InvalidOperationException($"The symbols given for {ImagePath} are those of another kernel.");
        }
    }

    private static string? SaveCore(QemuMachine machine, MachineOptions options, string path)
    {
        if (options.Core == CoreForm.None)
        {
            return null;
        }

        machine.Physical.SaveCore(options.Core, path);
        return path;
    }

    /// <summary>Physical start of the image (not under Xen, where it has none) and its length, by the guest's own word.</summary>
    private static (ulong Code, int Length) Extent(GuestReport report, MachineOptions options, ulong start, int mapped)
    {
        ulong code = ImageStart;
        ulong length;
        if (options.Xen is null)
        {
            code = report.PhysicalRange("Kernel code").Start;
            length = report.PhysicalRange("Kernel bss").End - code;
        }
        else
        {
            length = report.Symbol("__bss_stop") - report.Symbol("_text");
        }

        // That its symbols agree with where it was read is what makes addresses readable.
        if (report.Symbol("_text") != start || length > (ulong)mapped || (code != ImageStart && !options.Kaslr))
        {
            throw new InvalidOperationException(
                $"The kernel lies at {code:x}+{length:x} with _text {report.Symbol("_text"):x}; read were {mapped:x} bytes from "
                    + $"{start:x} on.");
        }

        return (code, (int)length);
    }
}
