using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Audit;

/// <summary>Prototypes of the operations in a kernel's table.</summary>
internal sealed class SlotPrototypes(KernelImage image, BtfPrototypes types)
{
    private static readonly RegisterSet[] s_arguments = [
        RegisterSet.Rdi, RegisterSet.Rsi, RegisterSet.Rdx, RegisterSet.Rcx, RegisterSet.R8, RegisterSet.R9];

    // Functions kept in struct paravirt_callee_save are pointers to void there: type information does not tell what they take. Arguments,
    // results.
    private static readonly Dictionary<string, FunctionPrototype> s_calleeSave = new()
    {
        ["save_fl"] = new(0, 1),
        ["restore_fl"] = new(1, 0),
        ["irq_disable"] = new(0, 0),
        ["irq_enable"] = new(0, 0),
        ["read_cr2"] = new(0, 1),
        ["pte_val"] = new(1, 1),
        ["make_pte"] = new(1, 1),
        ["pmd_val"] = new(1, 1),
        ["make_pmd"] = new(1, 1),
        ["pud_val"] = new(1, 1),
        ["make_pud"] = new(1, 1),
        ["p4d_val"] = new(1, 1),
        ["make_p4d"] = new(1, 1),
        ["pgd_val"] = new(1, 1),
        ["make_pgd"] = new(1, 1),
        ["queued_spin_unlock"] = new(1, 0),
        ["vcpu_is_preempted"] = new(1, 1),
    };

    /// <summary>The prototype of an operation; <see langword="null"/> where it is not known.</summary>
    public FunctionPrototype? Of(OpSlot slot)
    {
        string name = slot.ShortName[(slot.ShortName.LastIndexOf('.') + 1)..];
        return slot.Convention == CallConvention.CalleeSave && s_calleeSave.TryGetValue(name, out FunctionPrototype known) ? known
            : types.OfMember(name) ?? (image.Native[slot.Index].TargetName is string native ? types.OfFunction(native) : null);
    }

    /// <summary>The registers of arguments.</summary>
    public static RegisterSet Registers(int arguments)
    {
        RegisterSet registers = RegisterSet.None;
        for (int i = 0; i < arguments; i++)
        {
            registers |= s_arguments[i];
        }

        return registers;
    }

    /// <summary>The registers of a result.</summary>
    public static RegisterSet Results(int results) => results switch
    {
        0 => RegisterSet.None,
        1 => RegisterSet.Rax,
        _ => RegisterSet.Rax | RegisterSet.Rdx,
    };
}
