using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Execution;

/// <summary>A patched site in ring 0 of the emulator, from its first byte to its end: the body and the nops behind it.</summary>
internal sealed class EmulatedSite : IDisposable
{
    public const ulong Code = 0x100000;
    public const ulong Stack = 0x200000;
    public const ulong StackTop = Stack + 0x800;
    public const ulong Table = 0x300000;
    public const ulong Target = Code + 0x800;
    public const ulong Room = Code + 0xc00;
    private const ulong Setup = 0x400000;

    private static readonly CpuRegister[] s_general64 =
    [
        CpuRegister.Rax, CpuRegister.Rcx, CpuRegister.Rdx, CpuRegister.Rbx, CpuRegister.Rsp, CpuRegister.Rbp, CpuRegister.Rsi,
        CpuRegister.Rdi,
        CpuRegister.R8, CpuRegister.R9, CpuRegister.R10, CpuRegister.R11, CpuRegister.R12, CpuRegister.R13, CpuRegister.R14,
        CpuRegister.R15,
    ];

    private readonly int _bitness;
    private readonly int _budget;
    private Dictionary<CpuRegister, ulong> _before = [];

    /// <summary>Plans one site for an operation, applies the plan and loads the code.</summary>
    public EmulatedSite(
        int bitness, Operation operation, int budget, NopStyle? nops = null, RegisterSet? allowed = null, SlotKind kind = SlotKind.Call)
    {
        UnicornCpu.RequireLibrary();
        _bitness = bitness;
        _budget = budget;
        byte[] code = new byte[0x1000];
        code.AsSpan().Fill(0xcc);
        byte modRm = (byte)(kind == SlotKind.Jump ? 0x25 : 0x15);
        byte[] original = [0xff, modRm, .. BitConverter.GetBytes(bitness == 64 ? (int)(Table - (Code + 6)) : (int)Table)];
        original.CopyTo(code, 0);
        code.AsSpan(6, budget - 6).Fill(0x90);
        var image = new CodeImage(Code, code, bitness);
        CallConvention convention = bitness == 64 ? CallConvention.KernelSysV : CallConvention.I386RegParm;
        OpsLayout layout = OpsLayout.Create(b => b.Table("ops", t => t.Slot("a", kind, convention)));
        PatchPlan plan = new PatchPlanner().Plan(
            image,
            SiteTable.Create(new PatchSite(Code, 0, budget, allowed ?? RegisterSet.All)),
            Backend.Create("b", layout, b => b.Set("ops.a", operation)),
            new PlanOptions { Nops = nops, Thunks = new AddressRange(Room, 0x100) });
        Decision = plan[0];
        plan.Apply(image);

        Cpu = new UnicornCpu(bitness);
        Cpu.Map(Code, code.Length);
        Cpu.Write(Code, code);
        Cpu.Map(Stack, 0x1000);
        Cpu.Map(Table, 0x1000);
        Cpu.Write(Table, BitConverter.GetBytes(Target));
        Cpu.Map(Setup, 0x1000);
        foreach (CpuRegister register in General)
        {
            Cpu[register] = 0x1234_5600 + (ulong)register; // fits 32 bits
        }

        Cpu[CpuRegister.Rsp] = StackTop;
        Cpu[CpuRegister.Flags] = 0x202;
    }

    public UnicornCpu Cpu { get; }

    public SiteDecision Decision { get; }

    private CpuRegister[] General => _bitness == 64 ? s_general64 : s_general64[..8];

    /// <summary>Runs a few instructions of preparation, with the registers given back afterwards.</summary>
    public void Prepare(ReadOnlySpan<byte> code)
    {
        Cpu.Write(Setup, code);
        Cpu.Run(Setup, Setup + (ulong)code.Length);
    }

    /// <summary>Runs the site until its end, or until another address where it does not come there.</summary>
    public void Run(ulong? until = null)
    {
        _before = General.Append(CpuRegister.Flags).ToDictionary(r => r, r => Cpu[r]);
        Cpu.Run(Code, until ?? Code + (ulong)_budget);
    }

    /// <summary>Registers that are not what they were before the run, the flags register with all its bits among them.</summary>
    public CpuRegister[] Changed() => [.. _before.Where(b => Cpu[b.Key] != b.Value).Select(b => b.Key)];

    public ulong Before(CpuRegister register) => _before[register];

    public void Dispose() => Cpu.Dispose();
}
