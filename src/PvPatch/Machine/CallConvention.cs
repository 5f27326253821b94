namespace PvPatch.Machine;

/// <summary>
/// How a slot's function is called: where arguments and result are, what it may destroy, whether there is a stack. The standard ones are
/// properties; <see cref="Create"/> makes a host's own. Immutable; each is equal to itself alone.
/// </summary>
public sealed class CallConvention
{
    private static readonly RegisterSet s_i386 = RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx | RegisterSet.Flags;

    private static readonly RegisterSet s_windows = s_i386 | RegisterSet.R8 | RegisterSet.R9 | RegisterSet.R10 | RegisterSet.R11;

    private static readonly RegisterSet s_sysV = s_windows | RegisterSet.Rsi | RegisterSet.Rdi;

    // Numbers of registers: rdi, rsi, rdx, rcx, r8, r9; rcx, rdx, r8, r9; eax, edx, ecx.
    private static readonly int[] s_sysVArguments = [7, 6, 2, 1, 8, 9];
    private static readonly int[] s_windowsArguments = [1, 2, 8, 9];
    private static readonly int[] s_regParmArguments = [0, 2, 1];

    private readonly int[] _arguments64;
    private readonly int[] _arguments32;
    private readonly RegisterSet _destroyed64;
    private readonly RegisterSet _destroyed32;

    private CallConvention(
        string name, int[] arguments64, int[] arguments32, RegisterSet destroyed64, RegisterSet destroyed32, int result = 0,
        bool hasStack = true, bool isOfHost = false)
    {
        Name = name;
        _arguments64 = arguments64;
        _arguments32 = arguments32;
        _destroyed64 = destroyed64;
        _destroyed32 = destroyed32;
        ResultNumber = result;
        HasStack = hasStack;
        IsOfHost = isOfHost;
    }

    /// <summary>
    /// System V AMD64 ABI: rdi, rsi, rdx, rcx, r8, r9; result rax; destroys those, r10, r11, flags and vector state. 64-bit only.
    /// </summary>
    public static CallConvention SysV { get; } = Standard(nameof(SysV), s_sysVArguments, s_sysV | RegisterSet.Vector);

    /// <summary>
    /// System V AMD64 as kernels use it, built without vector registers: as <see cref="SysV"/> but the vector state survives.
    /// </summary>
    public static CallConvention KernelSysV { get; } = Standard(nameof(KernelSysV), s_sysVArguments, s_sysV);

    /// <summary>Windows x64: rcx, rdx, r8, r9; result rax; destroys those, r10, r11, flags and vector state. 64-bit only.</summary>
    public static CallConvention WindowsX64 { get; } =
        Standard(nameof(WindowsX64), s_windowsArguments, s_windows | RegisterSet.Vector);

    /// <summary>i386 with three register arguments (regparm(3)): eax, edx, ecx; result eax (edx:eax); destroys those and flags.</summary>
    public static CallConvention I386RegParm { get; } = Standard(nameof(I386RegParm), s_sysVArguments, s_i386);

    /// <summary>
    /// Callee-save (struct paravirt_callee_save, 2.6.30 and later): arguments as usual for the bitness, but only the result survives
    /// the call changed: rax and flags in 64-bit code; eax, edx and flags in 32-bit code.
    /// </summary>
    public static CallConvention CalleeSave { get; } = new(
        nameof(CalleeSave), s_sysVArguments, s_regParmArguments, RegisterSet.Rax | RegisterSet.Flags,
        RegisterSet.Rax | RegisterSet.Rdx | RegisterSet.Flags);

    /// <summary>
    /// Static registers, no stack (as proposed for ia64): arguments as usual for the bitness, only rax, rcx, rdx and flags may be
    /// destroyed, and there is no stack: neither calls nor bodies that push may be put at such a slot's sites.
    /// </summary>
    public static CallConvention StaticRegisters { get; } = new(
        nameof(StaticRegisters), s_sysVArguments, s_regParmArguments, s_i386, s_i386, hasStack: false);

    /// <summary>A name for reports.</summary>
    public string Name { get; }

    /// <summary>Whether functions may use the stack. Without one there are neither calls nor bodies that push.</summary>
    public bool HasStack { get; }

    /// <summary>Whether it is a host's own, which operations are held to: see <see cref="Create"/>.</summary>
    internal bool IsOfHost { get; }

    /// <summary>The number of the register that holds the result; -1 where there is none.</summary>
    internal int ResultNumber { get; }

    /// <summary>Makes a convention of a host's own, for code it generates.</summary>
    /// <param name="name">A name for reports.</param>
    /// <param name="arguments">The register of each argument: one general register each, all different, not rsp.</param>
    /// <param name="result">The register of the result, one general register, not rsp; empty where there is none.</param>
    /// <param name="destroyed">What functions may destroy, not rsp. The result counts as destroyed without being named.</param>
    /// <param name="hasStack">Whether functions may use the stack.</param>
    /// <returns>The convention.</returns>
    /// <remarks>
    /// A backend is held to it: a body that destroys more or uses a stack that is not there, and a target that is not known to keep to it,
    /// are refused (PV2006). What code of the arena does is computed; of other code it is said (<see cref="Mechanisms.Operation.Call"/>,
    /// <see cref="Mechanisms.Operation.CalledBy"/>), and where it is more than the convention allows, a thunk saves the difference.
    /// </remarks>
    /// <exception cref="ArgumentException">A set is not as said.</exception>
    public static CallConvention Create(
        string name, IReadOnlyList<RegisterSet> arguments, RegisterSet result, RegisterSet destroyed, bool hasStack = true)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(arguments);
        int[] numbers = [.. arguments.Select(static a => NumberOf(a, nameof(arguments)))];
        if (numbers.Distinct().Count() != numbers.Length)
        {
            throw new ArgumentException("two arguments are in one register", nameof(arguments));
        }

        if (destroyed.Contains(RegisterSet.Rsp))
        {
            throw new ArgumentException("functions give the stack pointer back", nameof(destroyed));
        }

        int inResult = result.IsEmpty ? -1 : NumberOf(result, nameof(result));
        return new CallConvention(name, numbers, numbers, destroyed | result, destroyed | result, inResult, hasStack, isOfHost: true);
    }

    /// <summary>What a function may destroy.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The set. The stack pointer is not in it: functions give it back.</returns>
    public RegisterSet DestroyedBy(int bitness) => bitness == 64 ? _destroyed64 : _destroyed32;

    /// <summary>The register of an argument.</summary>
    /// <param name="index">Which one, from 0.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The set with that one register; empty where no register holds it.</returns>
    public RegisterSet Argument(int index, int bitness)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ReadOnlySpan<int> numbers = ArgumentNumbers(bitness);
        return index < numbers.Length ? RegisterSet.General(numbers[index]) : RegisterSet.None;
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>Whether the first argument is in the register of the result, so that giving it back takes no instruction.</summary>
    internal bool ReturnsArgumentInPlace(int bitness) => ArgumentNumbers(bitness)[0] == ResultNumber;

    /// <summary>The numbers of the arguments' registers, in order.</summary>
    internal ReadOnlySpan<int> ArgumentNumbers(int bitness) => bitness == 64 ? _arguments64 : _arguments32;

    private static CallConvention Standard(string name, int[] arguments, RegisterSet destroyed) =>
        new(name, arguments, s_regParmArguments, destroyed, destroyed);

    private static int NumberOf(RegisterSet register, string parameter) =>
        register.Count == 1 && register != RegisterSet.Rsp && RegisterSet.AllGeneral.Contains(register)
            ? System.Numerics.BitOperations.TrailingZeroCount(register.Bits)
            : throw new ArgumentException($"{register} is not one general register that a value can be in", parameter);
}
