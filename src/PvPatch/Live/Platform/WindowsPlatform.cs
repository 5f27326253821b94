using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;
using static PvPatch.Live.Platform.WindowsNative;

namespace PvPatch.Live.Platform;

/// <summary>Windows: a section with two views, FlushProcessWriteBuffers. Written from the documentation; not run in this project's own builds.</summary>
internal sealed unsafe class WindowsPlatform : LivePlatform
{
    private const ulong Reach = (1UL << 31) - (1 << 16);

    // dwAllocationGranularity, the same on every Windows.
    public override int Granularity => 1 << 16;

    public override bool TryReserve(MapRequest request, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        void* run = Placeholder(request, placeholder: !request.WritableAndExecutable);
        if (run is null && request is { Near: not null, MustReach: false })
        {
            run = Placeholder(request with { Near = null }, placeholder: !request.WritableAndExecutable);
        }

        if (run is null)
        {
            error = request.Near is null
                ? Refused("address space for an arena")
                : Refused("address space in reach") with { Address = request.Near };
            return false;
        }

        if (request.WritableAndExecutable)
        {
            mapping = new WindowsMapping(run, run, request.Size, 0);
            error = null;
            return true;
        }

        return WindowsMapping.TryCreateDual(run, request.Size, out mapping, out error);
    }

    // FlushProcessWriteBuffers is documented to interrupt every processor that runs the process, not to serialize it.
    public override BarrierKind PrepareBarrier() => BarrierKind.Weak;

    public override bool TryBarrier(BarrierKind kind)
    {
        if (kind == BarrierKind.None)
        {
            return false;
        }

        Interlocked.MemoryBarrierProcessWide();
        _ = FlushInstructionCache(GetCurrentProcess(), null, 0);
        return true;
    }

    public override bool TryWriteBarrier(Assembler assembler, BarrierKind kind)
    {
        if (kind == BarrierKind.None
            || !NativeLibrary.TryLoad("kernel32", out nint library)
            || !NativeLibrary.TryGetExport(library, "FlushProcessWriteBuffers", out nint flush))
        {
            return false;
        }

        assembler.sub(rsp, 40); // 32 bytes that belong to the callee, and alignment
        assembler.mov(rax, (ulong)flush);
        assembler.call(rax);
        assembler.add(rsp, 40);
        assembler.xor(eax, eax); // the function gives nothing back and can't fail
        assembler.ret();
        return true;
    }

    public override Predicate<VirtualAddress>? ExecutableTest() => IsExecutable;

    internal static PatchDiagnostic Refused(string what)
    {
        int number = Marshal.GetLastPInvokeError();
        return PatchDiagnostic.Error(DiagnosticCodes.ArenaRefused, $"the system refuses {what}") with
        {
            Found = $"error {number} ({Marshal.GetPInvokeErrorMessage(number)})",
            Help = "Processes with arbitrary code guard (ProhibitDynamicCode) may not have executable memory, whatever ArenaOptions.Protection is. "
                + "Where only sections are refused, ArenaProtection.WritableAndExecutable does without one.",
        };
    }

    private static void* Placeholder(MapRequest request, bool placeholder)
    {
        var requirements = default(AddressRequirements);
        uint count = 0;
        if (request.Near is VirtualAddress near)
        {
            ulong low = near.Value > Reach ? near.Value - Reach : 1 << 16;
            ulong high = Math.Min(near.Value + Reach, 0x7fff_ffff_0000);
            requirements.Lowest = (void*)(low + 0xffff & ~0xffffUL);
            requirements.Highest = (void*)((high & ~0xffffUL) - 1); // inclusive, one below a multiple of the granularity
            count = 1;
        }

        var parameter = new ExtendedParameter { Type = MemExtendedParameterAddressRequirements, Pointer = &requirements };
        uint type = placeholder ? MEM_RESERVE | MEM_RESERVE_PLACEHOLDER : MEM_RESERVE;
        return VirtualAlloc2(0, null, (nuint)request.Size, type, PAGE_NOACCESS, count == 0 ? null : &parameter, count);
    }

    private static bool IsExecutable(VirtualAddress address)
    {
        MemoryInformation information;
        return VirtualQuery((void*)address.Value, &information, (nuint)sizeof(MemoryInformation)) != 0
            && information.State == MEM_COMMIT && (information.Protect & AnyExecute) != 0;
    }
}
