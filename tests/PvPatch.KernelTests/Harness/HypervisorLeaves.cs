using System.Buffers.Binary;
using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Makes a guest of QEMU's translator believe in a hypervisor, or in features that it has not. The kernel asks by CPUID, and all its
/// questions go through one function, native_cpuid(eax, ebx, ecx, edx: in and out, by pointer). The machine is stopped
/// there, and for the leaves of a hypervisor the answer is written and the function left. The image stays as it is.
/// What a guest asks for in other ways is answered at further stops, set when it first asks for a leaf.
/// The machine is run by the stub alone, so that nobody continues it while an answer is half written.
/// </summary>
internal sealed class HypervisorLeaves : RunControl
{
    /// <summary>The function's name in kallsyms.</summary>
    public const string Function = "native_cpuid";

    private const uint FeatureLeaf = 7;

    /// <summary>How late a mark on the console may be seen.</summary>
    private static readonly TimeSpan s_slice = TimeSpan.FromMilliseconds(10);

    private readonly GdbStub _stub;
    private readonly ulong _function;
    private readonly Dictionary<uint, CpuidAnswer> _answers = [];
    private readonly IReadOnlyList<GuestStops> _stops;
    private readonly uint _moreFeatures;

    /// <summary>Sets the breakpoint; the machine has not run yet.</summary>
    /// <param name="stub">The stub that runs the machine.</param>
    /// <param name="symbols">Where native_cpuid and what the stops need is.</param>
    /// <param name="options">What the guest is to believe in.</param>
    /// <param name="console">The guest's console.</param>
    public HypervisorLeaves(GdbStub stub, IReadOnlyDictionary<string, ulong> symbols, MachineOptions options, SerialConsole console)
        : base(console)
    {
        _stub = stub;
        _function = symbols[Function];
        _moreFeatures = options.MoreFeatures;
        List<GuestStops> stops = [];
        if (options.KvmFeatures is { } features)
        {
            Add(KvmLeaves.Make(features));
        }

        if (options.HyperV is { } hyperV)
        {
            Add(HyperVLeaves.Make(hyperV));
            stops.Add(new HyperVRegisters(stub, symbols));
        }

        if (options.Vmware is { } vmware)
        {
            Add(VmwareLeaves.Make());
            stops.Add(new VmwarePort(stub, symbols, vmware));
        }

        if (options.Tdx)
        {
            Add(TdxLeaves.Make());
            stops.Add(new TdxCalls(stub, symbols));
        }

        _stops = stops;
        stub.SetBreakpoint(_function);
    }

    /// <summary>How often a leaf of the hypervisor was asked for and answered.</summary>
    public int Answered { get; private set; }

    public override bool RunUntil(Func<TimeSpan, bool> reached, TimeSpan timeout)
    {
        Stopwatch clock = Stopwatch.StartNew();
        while (!IsOver(clock, timeout))
        {
            Answer();
            _stub.Continue();
            while (!_stub.StopsWithin(s_slice))
            {
                if (reached(TimeSpan.Zero))
                {
                    // This may still be a stop in the function; it is answered when the machine runs on.
                    _stub.Interrupt();
                    return true;
                }

                if (IsOver(clock, timeout))
                {
                    return false;
                }
            }
        }

        return false;
    }

    private void Add(Dictionary<uint, CpuidAnswer> answers)
    {
        foreach ((uint leaf, CpuidAnswer answer) in answers)
        {
            _answers.Add(leaf, answer);
        }
    }

    /// <summary>Gets a machine that stopped at one of the places over it; any other stop is left alone.</summary>
    private void Answer()
    {
        GdbRegisters registers = _stub.ReadRegisters();
        if (registers.Rip != _function)
        {
            _ = _stops.Any(stops => stops.TryAnswer(registers));
            return;
        }

        uint leaf = _stub.ReadUInt32(registers.Rdi);
        if (leaf == FeatureLeaf && _moreFeatures != 0 && _stub.ReadUInt32(registers.Rdx) == 0)
        {
            AddFeatures(registers);
            return;
        }

        if (!_answers.TryGetValue(leaf, out CpuidAnswer answer))
        {
            _stub.StepOver(_function);
            return;
        }

        // Before its first question the kernel may not be unpacked, let alone mapped.
        foreach (GuestStops stops in _stops)
        {
            stops.SetOnce();
        }

        _stub.WriteUInt32(registers.Rdi, answer.Eax);
        _stub.WriteUInt32(registers.Rsi, answer.Ebx);
        _stub.WriteUInt32(registers.Rdx, answer.Ecx);
        _stub.WriteUInt32(registers.Rcx, answer.Edx);

        // At its first instruction the function's stack holds nothing but the way back.
        registers.Rip = BinaryPrimitives.ReadUInt64LittleEndian(_stub.ReadMemory(registers.Rsp, sizeof(ulong)));
        registers.Rsp += sizeof(ulong);
        _stub.WriteRegisters(registers);
        Answered++;
    }

    /// <summary>Lets the function answer, and adds bits to what it says of edx.</summary>
    private void AddFeatures(GdbRegisters registers)
    {
        const int MostSteps = 200; // the function has some twenty instructions
        ulong back = BinaryPrimitives.ReadUInt64LittleEndian(_stub.ReadMemory(registers.Rsp, sizeof(ulong)));
        _stub.StepOver(_function);
        for (int i = 0; i < MostSteps && _stub.ReadRegisters().Rip != back; i++)
        {
            _stub.Step();
        }

        _stub.WriteUInt32(registers.Rcx, _stub.ReadUInt32(registers.Rcx) | _moreFeatures);
        Answered++;
    }
}
