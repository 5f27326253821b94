namespace PvPatch.Plans;

/// <summary>What a plan does at a site.</summary>
public enum PatchAction : byte
{
    /// <summary>The site keeps its bytes; <see cref="PatchReason"/> says why.</summary>
    LeaveAlone,

    /// <summary>The whole site becomes nops.</summary>
    Nop,

    /// <summary>A move of the first argument to the result register, or nops where the two are one.</summary>
    Identity,

    /// <summary>The operation's own instructions.</summary>
    Inline,

    /// <summary>A direct call.</summary>
    Call,

    /// <summary>A direct jump.</summary>
    Jump,

    /// <summary>A direct call of a thunk that saves registers around the target.</summary>
    ThunkCall,

    /// <summary>A trap (<c>ud2</c>): the operation is missing.</summary>
    Trap,

    /// <summary>A direct call of the kernel's own "this must not happen" function: the operation is missing.</summary>
    CallBug,

    /// <summary>Not a site but room the host gave: a thunk is written there.</summary>
    Thunk,

    /// <summary>Not a site but a record of a table: it is written so that the image's own patcher leaves the site it names alone.</summary>
    Record,

    /// <summary>Not a site but a slot of running code: the word that holds the function of an operation.</summary>
    Slot,
}

/// <summary>Why a site is left alone.</summary>
public enum PatchReason : byte
{
    /// <summary>It is not left alone.</summary>
    None,

    /// <summary>Neither a body nor a 5-byte call or jump fits the budget.</summary>
    TooSmall,

    /// <summary>The body or target destroys more than the site allows.</summary>
    ClobbersTooMuch,

    /// <summary>The target is more than 2 GiB away.</summary>
    OutOfReach,

    /// <summary>There is no indirect call or jump at the site.</summary>
    NotACall,

    /// <summary>The site has no usable stack, and what would be put there needs one.</summary>
    NeedsStack,

    /// <summary>The backend's own patch function leaves such sites alone.</summary>
    BackendDeclines,

    /// <summary>The rules do nothing for such sites (2.6.20 and 2.6.21 have no default).</summary>
    RulesDecline,

    /// <summary>The slot's function changes while the kernel starts, so that the site has to stay a call through the slot until the kernel patches it.</summary>
    ChangesWhileBooting,

    /// <summary>The site can be changed only while no thread is in the code, and does the same through its slot.</summary>
    NeedsQuiescence,
}
