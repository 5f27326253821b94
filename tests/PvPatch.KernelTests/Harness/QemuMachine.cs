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
    private readonly MappedMemory _mapped;
    private readonly IReadOnlyDictionary<string, ulong>? _symbols;
    private readonly GdbStub? _stub;
    private readonly HypervisorLeaves? _leaves;
    private readonly RunControl _run;

    private QemuMachine(MachineOptions options, QemuProcess process, IReadOnlyDictionary<string, ulong>? symbols)
    {
        _options = options;
        _process = process;
        _symbols = symbols;

        // The machine is held (-S) until all ends are connected, so no byte of the console is lost.
        _console = new SerialConsole(process.Connect(PathOf(QemuArguments.Console)));
        _qmp = new Qmp(process.Connect(PathOf(QemuArguments.Qmp)), s_commandTimeout);
        Physical = new PhysicalMemory(_qmp, options.MemoryMiB);
        _mapped = new MappedMemory(_qmp, process.DirectoryPath);
        if (options.AnswersLeaves)
        {
            _stub = new GdbStub(process.Connect(PathOf(QemuArguments.Gdb)));
            _leaves = new HypervisorLeaves(_stub, symbols!, options, _console);
        }

        _run = _leaves is null ? new QmpRunControl(_qmp, _console) : _leaves;
    }

    /// <summary>Everything the guest has printed on its console so far.</summary>
    public string ConsoleText => _console.Text;

    /// <summary>The memory by physical address, to be read while the machine is stopped.</summary>
    internal PhysicalMemory Physical { get; }

    /// <summary>How often the guest was told about its hypervisor.</summary>
    public int HypervisorAnswers => _leaves?.Answered ?? 0;

    /// <summary>Sets the machine up; it runs from the first <see cref="RunTo(BootPoint)"/> on.</summary>
    /// <param name="kernelPath">
    /// A bzImage, or an x86-64 ELF vmlinux with the PVH entry note (Debian's have it), for example one with patched sites.
    /// </param>
    /// <param name="options">Null for <see cref="MachineOptions.Default"/>.</param>
    /// <param name="symbols">
    /// Link addresses of the kernel's symbols, from another boot of it: needed for hypervisors other than Xen,
    /// and spares this guest to report them. Null has the guest report its own.
    /// </param>
    /// <param name="modules">Modules (.ko, not packed) that user space loads, in this order.</param>
    public static QemuMachine Start(
        string kernelPath, MachineOptions? options = null, IReadOnlyDictionary<string, ulong>? symbols = null,
        IReadOnlyList<string>? modules = null)
    {
        return Start(kernelPath, options, symbols, modules, program: null);
    }

    /// <summary>As the other, with a program that user space runs before the report.</summary>
    internal static QemuMachine Start(
        string kernelPath, MachineOptions? options, IReadOnlyDictionary<string, ulong>? symbols, IReadOnlyList<string>? modules,
        GuestProgram? program)
    {
        options ??= MachineOptions.Default;
        options.Check();
        if (options.AnswersLeaves && symbols?.ContainsKey(HypervisorLeaves.Function) != true)
        {
            throw new ArgumentException(
                $"To boot as a guest of a hypervisor, the address of {HypervisorLeaves.Function} is needed.", nameof(symbols));
        }

        string directory = Directory.CreateTempSubdirectory("pvpatch-vm-").FullName;
        QemuProcess? process = null;
        QemuMachine? machine = null;
        try
        {
            string initramfs = Path.Combine(directory, "initramfs");
            GuestInitramfs.Write(initramfs, Busybox(options.Architecture), symbolsKnown: symbols is not null, modules ?? [], program);
            process = new QemuProcess(directory, QemuArguments.Build(Path.GetFullPath(kernelPath), initramfs, directory, options));
            machine = new QemuMachine(options, process, symbols);
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
        RunTo(point == BootPoint.AfterPatching ? PatchingDoneMark : GuestInitramfs.ReadyMark);
        RequireInitSections(point);
    }

    /// <summary>Lets the machine run until it has printed a text, and stops it a little later.</summary>
    internal void RunTo(string mark)
    {
        try
        {
            if (!_run.RunUntil(slice => _console.WaitFor(mark, slice), _options.Timeout))
            {
                throw Failure($"{WhyNot()} before the guest printed '{mark}'.");
            }
        }
        catch (IOException exception)
        {
            string reason = _process.EndsWithin(TimeSpan.FromSeconds(10)) ? $"QEMU ended ({_process.Errors})" : exception.Message;
            throw Failure($"{reason} before the guest printed '{mark}'.");
        }
    }

    /// <summary>Reads guest-physical memory of the stopped machine.</summary>
    public byte[] ReadPhysical(ulong address, int length)
    {
        string path = PathOf("memory");
        Physical.Save(address, length, path);
        return File.ReadAllBytes(path);
    }

    /// <summary>Reads the kernel image by the address it has in the guest.</summary>
    public byte[] ReadKernel(ulong startVa, int length)
    {
        string path = PathOf("memory");
        int saved = SaveKernel(startVa, length, path);
        return saved == length
            ? File.ReadAllBytes(path)
            : throw new InvalidOperationException($"Of {startVa:x}+{length:x} only {saved:x} bytes are mapped.");
    }

    /// <summary>Reads memory by the address it has in the guest's kernel: also that of modules, whose pages are scattered.</summary>
    public byte[] ReadMapped(ulong startVa, int length)
    {
        string path = PathOf("memory");
        int saved = _mapped.Save(startVa, length, path, RunUntilFound(() => _mapped.FindProcessor(startVa)));
        return saved == length
            ? File.ReadAllBytes(path)
            : throw new InvalidOperationException($"Of {startVa:x}+{length:x} only {saved:x} bytes are mapped.");
    }

    /// <summary>Writes a range of the kernel image to a file that stays after the machine.</summary>
    /// <returns>Number of bytes: fewer than asked for if the kernel's own mapping ends before.</returns>
    public int SaveKernel(ulong startVa, int most, string path)
    {
        if (_options.IsAtLinkAddress)
        {
            Physical.Save(startVa - _options.ImageOffset, most, path);
            return most;
        }

        return _mapped.Save(startVa, most, path, RunUntilFound(() => _mapped.FindProcessor(startVa)));
    }

    /// <summary>Where the kernel image starts in this machine.</summary>
    public ulong FindKernel()
    {
        return _options.Kaslr ? RunUntilFound(_mapped.FindKernelStart) : _options.ImageOffset + BootedKernel.ImageStart;
    }

    /// <summary>Refuses a machine that should be before the end of its init sections and is not.</summary>
    public void RequireInitSections(BootPoint point)
    {
        if (point == BootPoint.AfterPatching && ConsoleText.Contains(InitFreedMark, StringComparison.Ordinal))
        {
            throw Failure("The machine was stopped too late: the init sections are freed already.");
        }
    }

    /// <summary>What user space reported; from <see cref="BootPoint.Ready"/> on.</summary>
    public GuestReport ReadReport()
    {
        // The last bytes may still sit in the emulated port, whose clock stands while the machine is stopped.
        GuestReport? report = null;
        bool whole = _run.RunUntil(
            slice =>
            {
                report = GuestReport.TryParse(File.ReadAllBytes(PathOf(QemuArguments.Report)), _symbols);
                Thread.Sleep(report is null ? 100 : 0);
                return report is not null;
            },
            s_commandTimeout);
        return whole ? report! : throw Failure("The guest's report did not arrive whole.");
    }

    public void Dispose()
    {
        _stub?.Dispose();
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

    private string PathOf(string name)
    {
        return Path.Combine(_process.DirectoryPath, name);
    }

    /// <summary>
    /// Looks for something that depends on what the processors are just doing (a hypervisor or a program of the guest
    /// has page tables without the kernel), and lets the machine run a little further as long as it is not there.
    /// </summary>
    private T RunUntilFound<T>(Func<T?> find)
        where T : struct
    {
        for (int attempt = 0; attempt < 200; attempt++)
        {
            if (find() is { } found)
            {
                return found;
            }

            if (!_run.RunFor(TimeSpan.FromMilliseconds(3)))
            {
                break;
            }
        }

        throw Failure("No processor was met within the kernel.");
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
