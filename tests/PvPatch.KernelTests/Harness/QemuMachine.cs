using System.Diagnostics;
using System.Text.Json.Nodes;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// A virtual machine that boots one kernel under QEMU's own translator (no KVM: the same everywhere, and root is
/// not needed) and whose memory can be read at set points of the boot.
/// </summary>
public sealed class QemuMachine : IDisposable
{
    /// <summary>
    /// First console line that all patching is surely before. The more obvious "Freeing SMP alternatives memory"
    /// will not do: 5.10 prints it just before it patches the paravirt sites, and with a second possible processor it
    /// is not printed at all. This one comes from the first thread, after the processors are up and before
    /// the initcalls, in every kernel with CONFIG_DEVTMPFS, which Debian's all have.
    /// </summary>
    internal const string PatchingDoneMark = "devtmpfs: initialized";

    /// <summary>Printed when the init sections are gone; seconds after the other mark, most initcalls lie between.</summary>
    internal const string InitFreedMark = "Freeing unused kernel image (initmem)";

    private static readonly TimeSpan s_commandTimeout = TimeSpan.FromSeconds(60);

    private readonly MachineOptions _options;
    private readonly QemuProcess _process;
    private readonly SerialConsole _console;
    private readonly Qmp _qmp;

    private QemuMachine(MachineOptions options, QemuProcess process)
    {
        _options = options;
        _process = process;

        // The machine is held (-S) until both ends are connected, so no byte of the console is lost.
        _console = new SerialConsole(process.Connect(Socket(process.DirectoryPath, "console")));
        _qmp = new Qmp(process.Connect(Socket(process.DirectoryPath, "qmp")), s_commandTimeout);
    }

    /// <summary>Everything the guest has printed on its console so far.</summary>
    public string ConsoleText => _console.Text;

    private string ReportPath => Path.Combine(_process.DirectoryPath, "report.gz");

    /// <summary>Sets the machine up; it runs from the first <see cref="RunTo"/> on.</summary>
    /// <param name="kernelPath">
    /// A bzImage, or an x86-64 ELF vmlinux with the PVH entry note (Debian's have it), for example one with patched sites.
    /// </param>
    /// <param name="options">Null for <see cref="MachineOptions.Default"/>.</param>
    public static QemuMachine Start(string kernelPath, MachineOptions? options = null)
    {
        options ??= MachineOptions.Default;
        string directory = Directory.CreateTempSubdirectory("pvpatch-vm-").FullName;
        QemuProcess? process = null;
        QemuMachine? machine = null;
        try
        {
            string initramfs = Path.Combine(directory, "initramfs");
            GuestInitramfs.Write(initramfs, Busybox(options.Architecture));
            process = new QemuProcess(directory, Arguments(Path.GetFullPath(kernelPath), initramfs, directory, options));
            machine = new QemuMachine(options, process);
            return machine;
        }
        catch (IOException exception) when (process?.EndsWithin(TimeSpan.FromSeconds(10)) == true)
        {
            // Its sockets exist before all arguments are checked, so the connection may be made and then break.
            throw new InvalidOperationException($"QEMU did not come up. {process.Errors}", exception);
        }
        finally
        {
            if (machine is null && process is null)
            {
                Directory.Delete(directory, recursive: true);
            }
            else if (machine is null)
            {
                process?.Dispose();
            }
        }
    }

    /// <summary>Lets the machine run to a point of the boot and stops it there.</summary>
    /// <exception cref="InvalidOperationException">
    /// The guest did not get there, or was not stopped in time; the message has the end of its console.
    /// </exception>
    public void RunTo(BootPoint point)
    {
        string mark = point == BootPoint.AfterPatching ? PatchingDoneMark : GuestInitramfs.ReadyMark;
        try
        {
            _qmp.Execute("cont");
            if (!_console.WaitFor(mark, _options.Timeout))
            {
                throw Failure($"{WhyNot()} before the guest printed '{mark}'.");
            }

            _qmp.Execute("stop");
        }
        catch (IOException exception)
        {
            throw Failure($"{exception.Message} The guest was to run to '{mark}'.");
        }

        if (point == BootPoint.AfterPatching && ConsoleText.Contains(InitFreedMark, StringComparison.Ordinal))
        {
            throw Failure("The machine was stopped too late: the init sections are freed already.");
        }
    }

    /// <summary>Reads guest-physical memory of the stopped machine.</summary>
    public byte[] ReadPhysical(ulong address, int length)
    {
        string path = Path.Combine(_process.DirectoryPath, "memory");
        SavePhysical(address, length, path);
        return File.ReadAllBytes(path);
    }

    /// <summary>Reads the kernel image by its link address.</summary>
    public byte[] ReadKernel(ulong startVa, int length)
    {
        return ReadPhysical(startVa - _options.ImageOffset, length);
    }

    /// <summary>Writes a range of the kernel image to a file that stays after the machine.</summary>
    public KernelMemory SaveKernel(ulong startVa, int length, string path)
    {
        SavePhysical(startVa - _options.ImageOffset, length, path);
        return new KernelMemory(path, startVa);
    }

    /// <summary>What user space reported; from <see cref="BootPoint.Ready"/> on.</summary>
    public GuestReport ReadReport()
    {
        // The last bytes may still sit in the emulated port, whose clock stands while the machine is stopped.
        Stopwatch clock = Stopwatch.StartNew();
        _qmp.Execute("cont");
        try
        {
            while (clock.Elapsed < s_commandTimeout)
            {
                if (GuestReport.TryParse(File.ReadAllBytes(ReportPath)) is { } report)
                {
                    return report;
                }

                Thread.Sleep(100);
            }
        }
        finally
        {
            _qmp.Execute("stop");
        }

        throw Failure("The guest's report did not arrive whole.");
    }

    public void Dispose()
    {
        _qmp.Dispose();
        _process.Dispose();
        _console.Dispose();
    }

    private static string Busybox(string architecture)
    {
        return architecture == "amd64"
            ? GuestInitramfs.HostBusybox
            : DebianArchive.FetchFile(new PackageRequest("bookworm", "busybox-static", architecture), "bin/busybox", "busybox");
    }

    private static string Socket(string directory, string name)
    {
        return Path.Combine(directory, name);
    }

    private static string[] Arguments(string kernel, string initramfs, string directory, MachineOptions options)
    {
        // In QEMU's option lists a comma ends the value; a doubled one is a comma.
        string place = directory.Replace(",", ",,", StringComparison.Ordinal);

        // noirqdebug: PREEMPT_RT kernels otherwise take the busy second port for a stuck interrupt and switch it off.
        string commandLine = $"console=ttyS0 nokaslr noirqdebug panic=-1 oops=panic {options.Append}".Trim();
        return
        [
            "-M", "q35", "-accel", "tcg,thread=single", "-cpu", options.Cpu, "-m", $"{options.MemoryMiB}",
            "-smp", options.Processors, "-display", "none", "-nodefaults", "-no-reboot", "-S",
            "-kernel", kernel, "-initrd", initramfs, "-append", commandLine,
            "-chardev", $"socket,id=s0,path={Socket(place, "console")},server=on,wait=off", "-device", "isa-serial,chardev=s0",
            "-chardev", $"file,id=s1,path={Path.Combine(place, "report.gz")}", "-device", "isa-serial,chardev=s1",
            "-qmp", $"unix:{Socket(place, "qmp")},server=on,wait=off",
        ];
    }

    private void SavePhysical(ulong address, int length, string path)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);

        // pmemsave reads nothing there as zeros, which would look like memory.
        ulong end = (ulong)_options.MemoryMiB << 20;
        if (address >= end || (ulong)length > end - address)
        {
            throw new ArgumentOutOfRangeException(
                nameof(address), $"{address:x}+{length:x} is not within the guest's {_options.MemoryMiB} MiB.");
        }

        JsonObject arguments = new() { ["val"] = address, ["size"] = length, ["filename"] = path };
        _qmp.Execute("pmemsave", arguments);
    }

    private string WhyNot()
    {
        // -no-reboot turns the reboot after a panic into the end of QEMU; the console closes a little earlier.
        bool ended = _console.IsClosed && _process.EndsWithin(TimeSpan.FromSeconds(10));
        return ended ? $"QEMU ended ({_process.Errors})" : $"{_options.Timeout.TotalSeconds:0} s passed";
    }

    private InvalidOperationException Failure(string what)
    {
        return new InvalidOperationException($"{what}\nEnd of the guest's console:\n{TextTail.Of(ConsoleText, 25)}");
    }
}
