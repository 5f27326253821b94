namespace PvPatch.Machine;

/// <summary>How a slot's function is called: where argument and result are, and what it may destroy.</summary>
public enum CallConvention
{
    /// <summary>
    /// System V AMD64 ABI: rdi, rsi, rdx, rcx, r8, r9; result rax; destroys those, r10, r11, flags and vector state. 64-bit only.
    /// </summary>
    SysV,

    /// <summary>
    /// System V AMD64 as kernels use it, built without vector registers: as <see cref="SysV"/> but the vector state survives.
    /// </summary>
    KernelSysV,

    /// <summary>Windows x64: rcx, rdx, r8, r9; result rax; destroys those, r10, r11, flags and vector state. 64-bit only.</summary>
    WindowsX64,

    /// <summary>i386 with three register arguments (regparm(3)): eax, edx, ecx; result eax (edx:eax); destroys those and flags.</summary>
    I386RegParm,

    /// <summary>
    /// Callee-save (struct paravirt_callee_save, 2.6.30 and later): arguments as usual for the bitness, but only the result survives
    /// the call changed: rax and flags in 64-bit code; eax, edx and flags in 32-bit code.
    /// </summary>
    CalleeSave,

    /// <summary>
    /// Static registers, no stack (as proposed for ia64): arguments as usual for the bitness, only rax, rcx, rdx and flags may be
    /// destroyed, and there is no stack: neither calls nor bodies that push may be put at such a slot's sites.
    /// </summary>
    StaticRegisters,
}

/// <summary>What the conventions mean in registers.</summary>
public static class CallConventions
{
    private static readonly RegisterSet s_windows =
        RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx | RegisterSet.R8 | RegisterSet.R9 | RegisterSet.R10 | RegisterSet.R11
        | RegisterSet.Flags;

    private static readonly RegisterSet s_i386 = RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx | RegisterSet.Flags;

    /// <summary>What a function of a convention may destroy.</summary>
    /// <param name="convention">The convention.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The set. The stack pointer is not in it: functions give it back.</returns>
    public static RegisterSet DestroyedBy(CallConvention convention, int bitness) => convention switch
    {
        CallConvention.SysV => s_windows | RegisterSet.Rsi | RegisterSet.Rdi | RegisterSet.Vector,
        CallConvention.KernelSysV => s_windows | RegisterSet.Rsi | RegisterSet.Rdi,
        CallConvention.WindowsX64 => s_windows | RegisterSet.Vector,
        CallConvention.I386RegParm => s_i386,
        CallConvention.StaticRegisters => s_i386,
        CallConvention.CalleeSave when bitness == 64 => RegisterSet.Rax | RegisterSet.Flags,
        CallConvention.CalleeSave => RegisterSet.Rax | RegisterSet.Rdx | RegisterSet.Flags,
        _ => throw new ArgumentOutOfRangeException(nameof(convention)),
    };

    /// <summary>The register of the first argument.</summary>
    /// <param name="convention">The convention.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The set with that one register.</returns>
    public static RegisterSet FirstArgument(CallConvention convention, int bitness) =>
        bitness == 32 ? RegisterSet.Rax
        : convention == CallConvention.WindowsX64 ? RegisterSet.Rcx
        : RegisterSet.Rdi;

    /// <summary>Whether functions of a convention may use the stack.</summary>
    /// <param name="convention">The convention.</param>
    /// <returns><see langword="false"/> for <see cref="CallConvention.StaticRegisters"/>.</returns>
    public static bool HasStack(CallConvention convention) => convention != CallConvention.StaticRegisters;
}
