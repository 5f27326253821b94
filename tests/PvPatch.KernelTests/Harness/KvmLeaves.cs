using System.Buffers.Binary;
using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Makes a guest of QEMU's translator believe in KVM. The kernel asks for a hypervisor by CPUID, and all its
/// questions go through one function, native_cpuid(eax, ebx, ecx, edx: in and out, by pointer). The machine is stopped
/// there, and for the leaves of a hypervisor the answer is written and the function left. The image stays as it is.
/// The machine is run by the stub alone, so that nobody continues it while an answer is half written.
/// </summary>
internal sealed class KvmLeaves : RunControl
{
    /// <summary>The function's name in kallsyms.</summary>
    public const string Function = "native_cpuid";

    private const uint SignatureLeaf = 0x4000_0000;
    private const uint FeatureLeaf = 0x4000_0001;

    /// <summary>How late a mark on the console may be seen.</summary>
    private static readonly TimeSpan s_slice = TimeSpan.FromMilliseconds(10);

    private readonly GdbStub _stub;
    private readonly ulong _function;
    private readonly uint _features;

    /// <summary>Sets the breakpoint; the machine has not run yet.</summary>
    /// <param name="stub">The stub that runs the machine.</param>
    /// <param name="function">Address of native_cpuid.</param>
    /// <param name="features">EAX of the feature leaf.</param>
    /// <param name="console">The guest's console.</param>
    public KvmLeaves(GdbStub stub, ulong function, uint features, SerialConsole console)
        : base(console)
    {
        _stub = stub;
        _function = function;
        _features = features;
        stub.SetBreakpoint(function);
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

    /// <summary>Gets a machine that stopped in the function over it; any other stop is left alone.</summary>
    private void Answer()
    {
        GdbRegisters registers = _stub.ReadRegisters();
        if (registers.Rip != _function)
        {
            return;
        }

        ReadOnlySpan<byte> signature = "KVMKVMKVM\0\0\0"u8;
        switch (_stub.ReadUInt32(registers.Rdi))
        {
            case SignatureLeaf:
                Return(
                    registers,
                    FeatureLeaf,
                    BinaryPrimitives.ReadUInt32LittleEndian(signature),
                    BinaryPrimitives.ReadUInt32LittleEndian(signature[4..]),
                    BinaryPrimitives.ReadUInt32LittleEndian(signature[8..]));
                break;
            case FeatureLeaf:
                Return(registers, _features, 0, 0, 0);
                break;
            default:
                // The stub stops again at once if the breakpoint stands where it is to continue.
                _stub.ClearBreakpoint(_function);
                _stub.Step();
                _stub.SetBreakpoint(_function);
                break;
        }
    }

    private void Return(GdbRegisters registers, uint eax, uint ebx, uint ecx, uint edx)
    {
        _stub.WriteUInt32(registers.Rdi, eax);
        _stub.WriteUInt32(registers.Rsi, ebx);
        _stub.WriteUInt32(registers.Rdx, ecx);
        _stub.WriteUInt32(registers.Rcx, edx);

        // At its first instruction the function's stack holds nothing but the way back.
        registers.Rip = BinaryPrimitives.ReadUInt64LittleEndian(_stub.ReadMemory(registers.Rsp, sizeof(ulong)));
        registers.Rsp += sizeof(ulong);
        _stub.WriteRegisters(registers);
        Answered++;
    }
}
