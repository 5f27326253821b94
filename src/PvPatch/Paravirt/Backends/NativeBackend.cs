using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// Bare hardware: privileged instructions in place of calls, nothing where a hypervisor would want to know, native functions for the rest.
/// </summary>
internal static class NativeBackend
{
    /// <summary>The backend's name.</summary>
    public const string Name = "native";

    /// <summary>Makes the native backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout: the standard one, one read from a kernel image, or one of 2.6.22 without tables.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the native functions are.</param>
    /// <param name="options">What kernels disagree on; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. Slots with a body also have the function as target where it is known; the bodies of <c>lock.queued_spin_unlock</c> and
    /// <c>lock.vcpu_is_preempted</c> stand for that function, for rules that go by pointer. Functions not known leave their slots missing.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(OpsLayout layout, int bitness, SlotTargets targets, NativeOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        StandardLayout.CheckBitness(bitness);
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, bitness, targets, options ?? new NativeOptions());
        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, native.WithBody(name, slot));
            }
        });
    }
}

/// <summary>
/// What kernels disagree on about the native backend. The defaults follow the layout, and are right for the kernels named.
/// </summary>
public sealed record NativeOptions
{
    /// <summary>
    /// Whether <c>cpu.iret</c> has a body. <see langword="null"/>: in 32-bit code always; in 64-bit code where the layout has
    /// <c>cpu.read_tsc</c>, as the kernels 2.6.25 to 3.6 and the standard layout do, and those of 4.8, 5.10 and later do not. 64-bit
    /// kernels that have both read_tsc and an iret they do not inline (late 3.x to 4.2) need <see langword="false"/>.
    /// </summary>
    public bool? InlineInterruptReturn { get; init; }

    /// <summary>
    /// Whether the 64-bit body of <c>lock.vcpu_is_preempted</c> is <c>xor rax,rax</c> (6.1, 6.12) and not <c>xor eax,eax</c> (5.10, 7.2).
    /// <see langword="null"/>: as the layout has it, by <c>cpu.io_delay</c> without <c>init.patch</c>.
    /// </summary>
    public bool? WideVcpuIsPreempted { get; init; }

    /// <summary>
    /// Offset in bytes from the gs base at which the user's stack pointer was saved on system call entry, for the body of
    /// <c>cpu.irq_enable_syscall_ret</c> (2.6.25, 2.6.26). The default is <c>oldrsp</c> of those kernels' per-CPU area.
    /// </summary>
    public int SavedUserStackOffset { get; init; } = 24;

    /// <summary>Whether the CPU has LKGS: <c>cpu.load_gs_index</c> then holds <c>native_lkgs</c> where that is known (6.12).</summary>
    public bool HasLkgs { get; init; }
}

/// <summary>Finds what each slot does on bare hardware; other backends take from it what they leave native.</summary>
internal sealed class NativeOperations
{
    private readonly PvSlots _slots;
    private readonly SlotTargets _targets;
    private readonly NativeOptions _options;
    private readonly NativeBodies _bodies;
    private readonly HashSet<VirtualAddress> _nops;
    private readonly VirtualAddress? _ident32;
    private readonly VirtualAddress? _ident64;
    private readonly bool _wide;

    public NativeOperations(PvSlots slots, int bitness, SlotTargets targets, NativeOptions options)
    {
        _slots = slots;
        _targets = targets;
        _options = options;
        _bodies = new NativeBodies(slots, bitness, options);
        _nops = [.. NativeFunctions.NopNames.Select(targets.Find).OfType<VirtualAddress>()];
        _ident32 = targets.Find("_paravirt_ident_32");
        _ident64 = targets.Find("_paravirt_ident_64");
        _wide = bitness == 64 || slots.HasWideEntries;
    }

    /// <summary>The operation with the body the native patch function puts in its place, where there is one.</summary>
    public Operation WithBody(string name, OpSlot slot)
    {
        if (_bodies.Find(name) is not InlineBody body)
        {
            return WithoutBody(name, slot);
        }

        // By slot, whatever the pointer: a null pointer (the system call exits of a kernel without 32-bit support) keeps its body.
        Operation operation = Operation.Inline(body);
        return TryFindTarget(name, slot, out string? symbol, out VirtualAddress target) && !target.IsZero
            ? operation.WithTarget(target, symbol)
            : operation;
    }

    /// <summary>The operation as the slot's pointer alone tells it.</summary>
    public Operation WithoutBody(string name, OpSlot slot)
    {
        NativeRole role = NativeFunctions.RoleOf(name);
        if (!TryFindTarget(name, slot, out string? symbol, out VirtualAddress target))
        {
            return role switch
            {
                NativeRole.Nop => Operation.Nop,
                NativeRole.Identity => _wide ? Operation.Identity64 : Operation.Identity32,
                _ => Operation.Missing,
            };
        }

        if (target.IsZero)
        {
            return Operation.Missing;
        }

        if (role == NativeRole.Identity || target == _ident64 || target == _ident32)
        {
            bool wide = target == _ident64 || (target != _ident32 && _wide);
            return (wide ? Operation.Identity64 : Operation.Identity32).WithTarget(target, symbol);
        }

        if (_nops.Contains(target) || (role == NativeRole.Nop && _nops.Count == 0))
        {
            return Operation.Nop.WithTarget(target, symbol);
        }

        return Leave(slot, target, symbol);
    }

    /// <summary>A call or a jump, as the slot's sites do it.</summary>
    public static Operation Leave(OpSlot slot, VirtualAddress target, string? symbol) =>
        slot.Kind == SlotKind.Jump ? Operation.Jump(target, symbol) : Operation.Call(target, symbol);

    private bool TryFindTarget(string name, OpSlot slot, out string? symbol, out VirtualAddress target)
    {
        // The one slot that native kernels write at boot: what an image holds is not what is there when sites are patched.
        if (name == "cpu.load_gs_index" && _options.HasLkgs && _targets.TryFind(["native_lkgs"], out symbol, out target))
        {
            return true;
        }

        string[] names = Names(name);
        if (!_targets.TryFindNativeSlot(slot.Name, out target))
        {
            return _targets.TryFind(names, out symbol, out target);
        }

        // The pointer counts; the symbol only names it in reports.
        symbol = null;
        foreach (string known in names)
        {
            if (_targets.Find(known) == target)
            {
                symbol = known;
                break;
            }
        }

        return true;
    }

    private string[] Names(string name) => NativeFunctions.RoleOf(name) switch
    {
        NativeRole.Nop => NativeFunctions.NopNames,
        NativeRole.Identity => [_wide ? "_paravirt_ident_64" : "_paravirt_ident_32", .. NativeFunctions.Of(name, _slots)],
        _ => NativeFunctions.Of(name, _slots),
    };
}
