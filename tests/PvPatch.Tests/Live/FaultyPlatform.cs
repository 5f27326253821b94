using Iced.Intel;
using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>The system's own platform, made to fail where a test says so.</summary>
internal sealed unsafe class FaultyPlatform : LivePlatform, IDisposable
{
    private readonly LivePlatform _real = Current;
    private readonly int* _nativeBarriersLeft = (int*)System.Runtime.InteropServices.NativeMemory.AllocZeroed(16);

    public BarrierKind? Kind { get; init; }

    public bool RefusesMemory { get; init; }

    /// <summary>Commits that succeed before one is refused; -1 for no end.</summary>
    public int CommitsLeft { get; set; } = -1;

    /// <summary>Barriers that managed code asked for.</summary>
    public int Barriers { get; private set; }

    public bool ManagedBarrierFails { get; set; }

    public bool HasNativeBarrier { get; init; } = true;

    /// <summary>
    /// Whether the barrier of the guard routine counts down <see cref="NativeBarriersLeft"/> and fails when that is used up.
    /// </summary>
    public bool CountsNativeBarriers { get; init; }

    public int NativeBarriersLeft
    {
        get => *_nativeBarriersLeft;
        set => *_nativeBarriersLeft = value;
    }

    public bool HasGsBase { get; init; } = true;

    public override int Granularity => _real.Granularity;

    public override bool CanSetGsBase => HasGsBase && _real.CanSetGsBase;

    public override bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions options, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        error = RefusesMemory ? LinuxPlatform.Refused("a memory file (memfd_create)", 1) : null;
        return error is null && _real.TryReserve(near, size, options, out mapping, out error);
    }

    public override bool TryCommit(CodeMapping mapping, long offset, long length, bool executable, out PatchDiagnostic? error)
    {
        if (CommitsLeft == 0)
        {
            error = LinuxPlatform.Refused("executable memory", 13);
            return false;
        }

        CommitsLeft -= CommitsLeft > 0 ? 1 : 0;
        return _real.TryCommit(mapping, offset, length, executable, out error);
    }

    public override BarrierKind PrepareBarrier() => Kind ?? _real.PrepareBarrier();

    public override bool TryBarrier(BarrierKind kind)
    {
        Barriers++;
        return !ManagedBarrierFails && _real.TryBarrier(kind);
    }

    public override bool TryWriteBarrier(Assembler assembler, BarrierKind kind)
    {
        if (!HasNativeBarrier)
        {
            return false;
        }

        if (CountsNativeBarriers)
        {
            Label fail = assembler.CreateLabel();
            Label go = assembler.CreateLabel();
            assembler.mov(rax, (ulong)_nativeBarriersLeft);
            assembler.cmp(__dword_ptr[rax], 0);
            assembler.je(fail);
            assembler.dec(__dword_ptr[rax]);
            assembler.jmp(go);
            assembler.Label(ref fail);
            assembler.mov(eax, -12); // -ENOMEM
            assembler.ret();
            assembler.Label(ref go);
        }

        return _real.TryWriteBarrier(assembler, kind);
    }

    public override Predicate<VirtualAddress>? ExecutableTest() => _real.ExecutableTest();

    public void Dispose() => System.Runtime.InteropServices.NativeMemory.Free(_nativeBarriersLeft);
}
