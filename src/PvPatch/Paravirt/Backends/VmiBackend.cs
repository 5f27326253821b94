using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A guest under VMware's VMI ROM (32-bit, 2.6.21 to about 2.6.36). Its patch function asks the ROM about six operations and leaves all
/// other sites alone, indirect as they are.
/// </summary>
internal static class VmiBackend
{
    private const int Bitness = 32;

    // Sites of the interrupt operations let a patch destroy eax at most and keep no other registers safe, so the ROM must.
    private static readonly RegisterSet s_destroyedByRom = RegisterSet.Rax | RegisterSet.Flags;

    /// <summary>The backend's name.</summary>
    public const string Name = "vmi";

    /// <summary>Makes the VMI backend for any 32-bit layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="targets">Where the kernel's functions are: wrappers (<c>vmi_…</c>) and the native ones that stay.</param>
    /// <param name="options">What the ROM answers; <see langword="null"/> for a ROM that has none of the calls.</param>
    /// <returns>
    /// The backend. Slots the ROM answers for with a call or jump are bodies of that one instruction, those with "nothing to do" are
    /// nops; every other slot holds what is known of it and says <see cref="Operation.IsLeftAloneByBackend"/>.
    /// </returns>
    /// <exception cref="ArgumentException">The ROM gives a kind that is none, or an address above 4 GiB.</exception>
    public static Backend Create(OpsLayout layout, SlotTargets targets, VmiOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        options ??= new VmiOptions();
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, Bitness, targets, new NativeOptions());
        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, PatchedOperationOf(name) ?? FilledOperationOf(name, slot).LeftAloneByBackend());
            }
        });

        Operation? PatchedOperationOf(string name)
        {
            if (name == "irq.save_fl_irq_disable")
            {
                return SaveAndDisable(Ask(VmiCall.GetInterruptMask), Ask(VmiCall.DisableInterrupts));
            }

            if (CallOf(name) is not VmiCall call)
            {
                return null;
            }

            VmiRelocation relocation = Ask(call);
            ulong target = relocation.Target.Value;
            return relocation.Kind switch
            {
                // call rel32: e8 rel32
                VmiRelocationKind.CallRel =>
                    Operation.Inline(InlineBody.Create(a => a.call(target), s_destroyedByRom)).WithTarget(relocation.Target, $"VMI {call}"),

                // jmp rel32: e9 rel32, never the short form, which the assembler would prefer for a target nearby.
                VmiRelocationKind.JumpRel =>
                    Operation.Inline(InlineBody.Create(a => a.AddInstruction(Instruction.CreateBranch(Code.Jmp_rel32_32, target))))
                        .WithTarget(relocation.Target, $"VMI {call}"),

                // Its patch function does this itself, so it is done in 2.6.21 too, which has no default rule.
                VmiRelocationKind.Nop => Operation.NopByHook,
                _ => null,
            };
        }

        Operation FilledOperationOf(string name, OpSlot slot)
        {
            if (options.Slots.TryGetValue(name, out VmiRelocation relocation) && Check(relocation, name).Kind != VmiRelocationKind.None)
            {
                return relocation.Kind != VmiRelocationKind.Nop ? NativeOperations.Leave(slot, relocation.Target, $"VMI {name}")
                    : targets.Find("vmi_nop") is VirtualAddress nop ? NativeOperations.Leave(slot, nop, "vmi_nop")
                    : Operation.Nop;
            }

            string wrapper = "vmi_" + name[(name.IndexOf('.', StringComparison.Ordinal) + 1)..];
            return targets.Find(wrapper) is VirtualAddress target
                ? NativeOperations.Leave(slot, target, wrapper)
                : native.WithoutBody(name, slot);
        }

        VmiRelocation Ask(VmiCall call) => Check(options.GetRelocation(call), call.ToString());
    }

    private static VmiCall? CallOf(string name) => name switch
    {
        "irq.irq_enable" => VmiCall.EnableInterrupts,
        "irq.irq_disable" => VmiCall.DisableInterrupts,
        "irq.save_fl" => VmiCall.GetInterruptMask,
        "irq.restore_fl" => VmiCall.SetInterruptMask,
        "cpu.iret" => VmiCall.InterruptReturn,
        "cpu.irq_enable_sysexit" => VmiCall.SysExit,
        _ => null,
    };

    // 2.6.21: one site for both, call rel32 twice: e8 rel32 e8 rel32.
    private static Operation? SaveAndDisable(VmiRelocation save, VmiRelocation disable)
    {
        if (save.Kind != VmiRelocationKind.CallRel || disable.Kind != VmiRelocationKind.CallRel)
        {
            return null;
        }

        (ulong first, ulong second) = (save.Target.Value, disable.Target.Value);
        return Operation.Inline(InlineBody.Create(
            a =>
            {
                a.call(first);
                a.call(second);
            },
            s_destroyedByRom));
    }

    private static VmiRelocation Check(VmiRelocation relocation, string what)
    {
        if (relocation.Kind > VmiRelocationKind.Nop || relocation.Target.Value > uint.MaxValue)
        {
            throw new ArgumentException($"the ROM's answer for {what} is kind {(byte)relocation.Kind}, address {relocation.Target}");
        }

        return relocation;
    }
}

/// <summary>What a VMI ROM answers.</summary>
public sealed record VmiOptions
{
    /// <summary>
    /// The ROM's answer for each of the six calls whose sites are patched. By default the ROM has none of them.
    /// </summary>
    public Func<VmiCall, VmiRelocation> GetRelocation { get; init; } = static _ => default;

    /// <summary>
    /// The ROM's answers for other slots that a guest fills straight from the ROM, by the standard slot name (<c>cpu.cpuid</c>). Their
    /// sites are not patched by VMI's own patch function; the functions are for rules that do better.
    /// </summary>
    public IReadOnlyDictionary<string, VmiRelocation> Slots { get; init; } = new Dictionary<string, VmiRelocation>();
}

/// <summary>How VMware's ROM wants a VMI call to be made. The values are the ROM's.</summary>
public enum VmiRelocationKind : byte
{
    /// <summary>Not by the ROM: sites stay as they are.</summary>
    None = 0,

    /// <summary>By a call of the ROM.</summary>
    CallRel = 1,

    /// <summary>By a jump to the ROM.</summary>
    JumpRel = 2,

    /// <summary>Not at all: nothing needs to be done.</summary>
    Nop = 3,
}

/// <summary>The calls of the VMI ROM whose sites a guest patches, by the ROM's numbers.</summary>
public enum VmiCall
{
    /// <summary>Allows interrupts.</summary>
    EnableInterrupts = 29,

    /// <summary>Forbids interrupts.</summary>
    DisableInterrupts = 30,

    /// <summary>Reads the flags.</summary>
    GetInterruptMask = 31,

    /// <summary>Writes the flags.</summary>
    SetInterruptMask = 32,

    /// <summary>Returns from an interrupt.</summary>
    InterruptReturn = 33,

    /// <summary>Allows interrupts and returns from a system call.</summary>
    SysExit = 34,
}

/// <summary>The ROM's answer to "how is this call made": a kind and the address in the ROM.</summary>
/// <param name="Kind">How.</param>
/// <param name="Target">The run address to call or jump to; 32 bits.</param>
public readonly record struct VmiRelocation(VmiRelocationKind Kind, VirtualAddress Target)
{
    /// <summary>Decodes the 64-bit value the ROM's function returns.</summary>
    /// <param name="value">Bits 0-31 the address, bits 32-39 the kind, the rest reserved and not looked at.</param>
    /// <param name="relocation">The answer.</param>
    /// <returns>Whether the kind is one of the four.</returns>
    public static bool TryDecode(ulong value, out VmiRelocation relocation)
    {
        var kind = (VmiRelocationKind)(byte)(value >> 32);
        bool known = kind <= VmiRelocationKind.Nop;
        relocation = known ? new VmiRelocation(kind, (uint)value) : default;
        return known;
    }
}
