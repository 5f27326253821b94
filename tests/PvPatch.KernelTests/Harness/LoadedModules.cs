namespace PvPatch.KernelTests.Harness;

/// <summary>A machine whose kernel has loaded modules, stopped in user space. Its memory is read as it is asked for.</summary>
internal sealed class LoadedModules : IDisposable
{
    private readonly QemuMachine _machine;
    private readonly GuestReport _report;
    private readonly Dictionary<ulong, byte[]> _sections = [];

    private LoadedModules(QemuMachine machine)
    {
        _machine = machine;
        machine.RunTo(BootPoint.Ready);
        _report = machine.ReadReport();
    }

    /// <summary>Boots a kernel and has it load its modules.</summary>
    /// <param name="modules">Kernel and modules.</param>
    /// <param name="options">The machine.</param>
    /// <param name="cpuid">The address of <see cref="HypervisorLeaves.Function"/>, for a boot as KVM guest.</param>
    public static LoadedModules Boot(DebianModules modules, MachineOptions options, ulong cpuid)
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-modules-");
        QemuMachine? machine = null;
        try
        {
            // Symbols are not needed; giving some spares the guest to report its own.
            Dictionary<string, ulong> symbols = new() { [HypervisorLeaves.Function] = cpuid };
            machine = QemuMachine.Start(modules.Kernel.ImagePath, options, symbols, modules.Unpack(directory.FullName));
            LoadedModules loaded = new(machine);
            machine = null;
            return loaded;
        }
        finally
        {
            machine?.Dispose();
            directory.Delete(recursive: true);
        }
    }

    /// <summary>Addresses of a module's sections.</summary>
    public IReadOnlyDictionary<string, VirtualAddress> SectionsOf(string module)
    {
        return _report.ModuleSections.TryGetValue(module, out IReadOnlyDictionary<string, ulong>? sections)
            ? sections.ToDictionary(static s => s.Key, static s => new VirtualAddress(s.Value))
            : throw new InvalidOperationException(
                $"The guest did not load {module}:\n{TextTail.Of(_machine.ConsoleText, 25)}\n{TextTail.Of(_report.Log, 25)}");
    }

    /// <summary>The bytes of a section.</summary>
    public byte[] Read(ulong address, int length)
    {
        if (!_sections.TryGetValue(address, out byte[]? bytes))
        {
            bytes = _machine.ReadMapped(address, length);
            _sections.Add(address, bytes);
        }

        return bytes;
    }

    public void Dispose()
    {
        _machine.Dispose();
    }
}
