using System.Runtime.InteropServices;
using RiscV.Host;
using RiscV.Isa;

namespace RiscV.Interpreter;

/// <summary>
/// Executes the guest by a table of C# function pointers, decoded once, and again after a fence.i: how an emulator is written without
/// generating code. The rival in speed, and the oracle for the translator, which shares no line with it below the decoder.
/// </summary>
internal sealed unsafe class InterpreterEngine : IEngine, IDisposable
{
    private readonly CpuState* _cpu;
    private readonly Decoded* _table;
    private readonly IAccessObserver? _observer;

    public InterpreterEngine(Guest guest, IAccessObserver? observer = null)
    {
        _cpu = guest.Cpu;
        _observer = observer;
        _table = (Decoded*)NativeMemory.Alloc((nuint)_cpu->CodeWords + 1, (nuint)sizeof(Decoded));
        Decode();
    }

    public void Execute()
    {
        CpuState* cpu = _cpu;
        ulong pc = cpu->Pc;
        long ticks = cpu->TicksLeft;
        while (true)
        {
            ulong offset = pc - cpu->CodeStart;
            if (offset >= cpu->CodeWords * 4 || (offset & 3) != 0)
            {
                cpu->Stop = StopReason.FetchFault;
                break;
            }

            if (ticks <= 0)
            {
                cpu->Stop = StopReason.OutOfTicks;
                break;
            }

            Decoded* instruction = _table + offset / 4;
            if (_observer is not null)
            {
                Observe(instruction);
            }

            pc = instruction->Handler(cpu, instruction);
            if (cpu->Stop == StopReason.CodeChanged)
            {
                cpu->Stop = StopReason.None;
                Decode();
            }
            else if (cpu->Stop != StopReason.None)
            {
                break;
            }

            ticks--;
        }

        cpu->Pc = pc;
        cpu->TicksLeft = ticks;
    }

    public void Dispose() => NativeMemory.Free(_table);

    private void Decode()
    {
        for (ulong i = 0; i < _cpu->CodeWords; i++)
        {
            ulong pc = _cpu->CodeStart + i * 4;
            _table[i] = Decoded.From(*(uint*)(_cpu->Window + pc), pc);
        }
    }

    private void Observe(Decoded* instruction)
    {
        if (instruction->Op is >= Op.Lb and <= Op.Sd)
        {
            _observer!.Access(instruction->Pc, instruction->Op, _cpu->X[instruction->Rs1] + (ulong)instruction->Imm);
        }
    }
}
