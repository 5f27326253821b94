using System.Runtime.InteropServices;
using RiscV.Host;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>
/// Executes single instructions: each stands in the middle of a kilobyte of ebreaks, so that wherever it leads, the next instruction stops.
/// </summary>
internal sealed unsafe class InstructionBench : IDisposable
{
    public const byte Rs1 = 10;
    public const byte Rs2 = 11;
    public const byte Rd = 12;

    /// <summary>Where loads and stores go.</summary>
    public const ulong Data = 0x900000;

    private const int Room = 1024;
    private const ulong Start = 0x10000;

    private readonly Guest _guest;
    private readonly IEngine _engine;

    public InstructionBench(string engine, IReadOnlyList<Instruction> instructions)
    {
        uint[] code = new uint[(instructions.Count + 1) * Room / 4];
        Array.Fill(code, Encoder.Encode(new Instruction(Op.Ebreak, 0, 0, 0, 0)));
        for (int i = 0; i < instructions.Count; i++)
        {
            code[(i * Room + Room / 2) / 4] = Encoder.Encode(instructions[i]);
        }

        _guest = new Guest(GuestImage.OfCode(MemoryMarshal.AsBytes(code.AsSpan()).ToArray(), Start));
        _engine = Engines.Create(engine, _guest);
    }

    public ulong Pc => _guest.Cpu->Pc;

    public ulong[] DataWords
    {
        get => [.. MemoryMarshal.Cast<byte, ulong>(DataSpan)];
        set => value.AsSpan().CopyTo(MemoryMarshal.Cast<byte, ulong>(DataSpan));
    }

    private Span<byte> DataSpan => _guest.Memory.TryGetSpan(Data, 16, out Span<byte> span) ? span : throw new InvalidOperationException();

    public ulong this[int register]
    {
        get => _guest.Cpu->X[register];
        set => _guest.Cpu->X[register] = value;
    }

    public ulong AddressOf(int index) => Start + (ulong)(index * Room + Room / 2);

    public void Reset() => new Span<ulong>(_guest.Cpu->X, 32).Clear();

    /// <summary>Executes an instruction and, where it does not stop itself, the ebreak it leads to.</summary>
    public StopReason Run(int index)
    {
        _guest.Cpu->Pc = AddressOf(index);
        return _guest.Run(_engine, 100);
    }

    public void Dispose()
    {
        ((IDisposable)_engine).Dispose();
        _guest.Dispose();
    }
}
