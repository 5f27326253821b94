using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

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
