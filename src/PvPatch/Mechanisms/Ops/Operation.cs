using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>What kind of thing a slot does under a backend.</summary>
public enum OperationKind
{
    /// <summary>There is no function: reaching a site is an error.</summary>
    Missing,

    /// <summary>Nothing happens.</summary>
    Nop,

    /// <summary>The first argument, as 32 bits, is the result.</summary>
    Identity32,

    /// <summary>The first argument, as 64 bits, is the result (on 32-bit code: the pair edx:eax).</summary>
    Identity64,

    /// <summary>A few instructions do it.</summary>
    Inline,

    /// <summary>A function does it and returns.</summary>
    Call,

    /// <summary>A function does it and does not return to the site.</summary>
    Jump,
}

/// <summary>What one slot does under one backend. Immutable.</summary>
public sealed record Operation
{
    private Operation(OperationKind kind) => Kind = kind;

    /// <summary>No function: sites trap.</summary>
    public static Operation Missing { get; } = new(OperationKind.Missing);

    /// <summary>Nothing happens.</summary>
    public static Operation Nop { get; } = new(OperationKind.Nop);

    /// <summary>The first argument, as 32 bits, is the result.</summary>
    public static Operation Identity32 { get; } = new(OperationKind.Identity32);

    /// <summary>The first argument, as 64 bits, is the result.</summary>
    public static Operation Identity64 { get; } = new(OperationKind.Identity64);

    /// <summary>
    /// Nothing happens, and the backend's own patch function sees to it: also under rules that have no default for operations without a
    /// body.
    /// </summary>
    internal static Operation NopByHook { get; } = new(OperationKind.Nop) { Body = InlineBody.Nothing };

    /// <summary>What kind of operation it is.</summary>
    public OperationKind Kind { get; private init; }

    /// <summary>The body, for <see cref="OperationKind.Inline"/>.</summary>
    public InlineBody? Body { get; private init; }

    /// <summary>
    /// The function the slot holds. Always there for calls and jumps; for the other kinds it is the function that rules which do not
    /// recognise the kind (identities from 6.1 on), or a site too small for the body, call instead.
    /// </summary>
    public VirtualAddress? Target { get; private init; }

    /// <summary>The target's name, for reports.</summary>
    public string? TargetName { get; private init; }

    /// <summary>
    /// The function the body stands for. Where the slot was given another one since, rules that go by pointer do not use the body.
    /// </summary>
    public VirtualAddress? StandsFor { get; private init; }

    /// <summary>What the target may destroy; <see langword="null"/> for what the slot's convention says.</summary>
    public RegisterSet? TargetDestroys { get; private init; }

    /// <summary>The target's convention; <see langword="null"/> where it is the slot's. See <see cref="CalledBy"/>.</summary>
    public CallConvention? TargetConvention { get; private init; }

    /// <summary>
    /// Which argument of the target, from 0, is the address it returns to in the code around the site; <see langword="null"/> for none. See
    /// <see cref="PassingCaller"/>.
    /// </summary>
    public int? CallerArgument { get; private init; }

    /// <summary>
    /// Whether the backend's own patch function would not touch sites of this slot (VMI: all but six). Rules of Linux eras leave them
    /// alone; the rules <c>Default</c> do the best that the operation allows. Live sites go through their slot, which holds the operation's
    /// function: for an operation whose target changes so often that a store into the slot is the better switch.
    /// </summary>
    public bool IsLeftAloneByBackend { get; private init; }

    /// <summary>
    /// Whether the backend's own patch function goes on with the default rule where the body does not fit (Xen, lguest) rather than leave
    /// the site alone (native). Rules of Linux eras look at it; the rules <c>Default</c> always go on.
    /// </summary>
    public bool DefaultsWhereTooLong { get; private init; }

    /// <summary>A call of a function.</summary>
    /// <param name="target">Its run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <param name="destroys">What it may destroy; <see langword="null"/> for what the slot's convention says.</param>
    /// <returns>The operation.</returns>
    public static Operation Call(VirtualAddress target, string? name = null, RegisterSet? destroys = null) =>
        new(OperationKind.Call) { Target = target, TargetName = name, TargetDestroys = destroys };

    /// <summary>A jump to a function that does not come back.</summary>
    /// <param name="target">Its run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <returns>The operation.</returns>
    public static Operation Jump(VirtualAddress target, string? name = null) =>
        new(OperationKind.Jump) { Target = target, TargetName = name };

    /// <summary>A few instructions in place of a call.</summary>
    /// <param name="body">The instructions.</param>
    /// <returns>The operation; <see cref="WithTarget"/> adds the function for sites where the body does not fit.</returns>
    public static Operation Inline(InlineBody body)
    {
        ArgumentNullException.ThrowIfNull(body);
        return new Operation(OperationKind.Inline) { Body = body };
    }

    /// <summary>The same operation, with the function that does it too.</summary>
    /// <param name="target">Its run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <param name="destroys">What it may destroy; <see langword="null"/> for what the slot's convention says.</param>
    /// <returns>A new operation.</returns>
    public Operation WithTarget(VirtualAddress target, string? name = null, RegisterSet? destroys = null) =>
        this with { Target = target, TargetName = name, TargetDestroys = destroys, StandsFor = Body is null ? null : target };

    /// <summary>
    /// Another function put into the slot while the backend's patch function stays as it was (what KVM and Hyper-V do to native): a body
    /// remains known, but it stands for the old function.
    /// </summary>
    /// <param name="target">The new function's run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <param name="destroys">What it may destroy; <see langword="null"/> for what the slot's convention says.</param>
    /// <returns>A new operation.</returns>
    public Operation Retarget(VirtualAddress target, string? name = null, RegisterSet? destroys = null) => this with
    {
        Kind = Body is not null ? OperationKind.Inline : Kind == OperationKind.Jump ? OperationKind.Jump : OperationKind.Call,
        Target = target,
        TargetName = name,
        TargetDestroys = destroys,
        StandsFor = Body is null ? null : StandsFor ?? VirtualAddress.Zero,
    };

    /// <summary>The same operation, with a name for its target.</summary>
    /// <param name="name">The target's name, for reports.</param>
    /// <returns>A new operation.</returns>
    public Operation Named(string name) => this with { TargetName = name };

    /// <summary>
    /// The same operation, whose target has a convention of its own: calls go through a thunk that brings arguments and result from the
    /// registers of the slot's convention to those of the target's, as many as both have general registers for, and saves what that
    /// destroys and a site keeps. For C# methods and C functions as targets of slots with a host's own convention.
    /// </summary>
    /// <param name="convention">The target's convention.</param>
    /// <returns>A new operation.</returns>
    public Operation CalledBy(CallConvention convention)
    {
        ArgumentNullException.ThrowIfNull(convention);
        return this with { TargetConvention = convention };
    }

    /// <summary>
    /// The same operation, whose target is told who called it: the address behind the call, at a site its end, in one of its arguments. For
    /// C# methods, which can't see their return address, and for every target behind a thunk;
    /// <see cref="Live.CodeArena.TryFindCaller"/> takes it. Calls go through a thunk.
    /// </summary>
    /// <param name="argument">Which argument of the target's convention, from 0: one the code around the site does not use.</param>
    /// <returns>A new operation.</returns>
    public Operation PassingCaller(int argument)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(argument);
        return this with { CallerArgument = argument };
    }

    /// <summary>The same operation, at whose sites the backend's own patch function does nothing.</summary>
    /// <returns>A new operation.</returns>
    public Operation LeftAloneByBackend() => this with { IsLeftAloneByBackend = true };

    /// <summary>
    /// The same operation, where the backend's own patch function goes on with the default rule if the body does not fit.
    /// </summary>
    /// <returns>A new operation.</returns>
    public Operation DefaultingWhereTooLong() => this with { DefaultsWhereTooLong = true };

    /// <summary>A call of a target from code of a convention: a thunk that saves nothing yet.</summary>
    internal ThunkCode CallOf(VirtualAddress target, CallConvention convention) =>
        new(target, RegisterSet.None, TargetConvention ?? convention)
        {
            From = TargetConvention is null ? null : convention,
            CallerArgument = CallerArgument,
        };

    /// <summary>What a call of the target destroys.</summary>
    internal RegisterSet DestroysBy(ThunkCode call, int bitness) =>
        (TargetDestroys ?? call.Convention.DestroyedBy(bitness)) | call.Writes(bitness);

    /// <inheritdoc/>
    public override string ToString() => TargetName ?? (Target is VirtualAddress target ? $"{Kind} {target}" : Kind.ToString());
}
