namespace PvPatch.Analysis;

/// <summary>What an instruction does to registers and stack as far as saved values are followed through it.</summary>
internal enum StepOp : byte
{
    /// <summary>What it writes is no longer known.</summary>
    Other,
    Move,
    Exchange,
    Constant,
    Lea,
    Align,
    Push,
    PushConstant,
    Pop,
    Load,
    Store,
    Leave,
}

/// <summary>Where control goes after an instruction.</summary>
internal enum StepFlow : byte
{
    Next,
    Jump,
    Branch,
    Call,
    IndirectCall,
    IndirectJump,
    Return,
    Trap,
    InterruptReturn,

    /// <summary>Other code runs before the next instruction: a system call, a hypercall.</summary>
    Outside,

    /// <summary>The bytes are no instruction, or lie outside the image.</summary>
    Invalid,
}

/// <summary>One instruction as the analyses need it: what it reads, writes and copies, by parts of registers.</summary>
/// <remarks>
/// Backwards: <c>before = (after and not Kill) or Use or (NeededUse, where after meets Needs) or the copies of what after needs</c>.
/// </remarks>
internal struct CodeStep
{
    /// <summary>Parts read whatever becomes of the result: addresses, conditions, what is stored.</summary>
    public ulong Use;

    /// <summary>Parts overwritten in any case.</summary>
    public ulong Kill;

    /// <summary>Results that need <see cref="NeededUse"/>.</summary>
    public ulong Needs;

    /// <summary>Parts read for the sake of <see cref="Needs"/> alone.</summary>
    public ulong NeededUse;

    /// <summary>Run address.</summary>
    public ulong Address;

    /// <summary>A constant, displacement or branch target, or the bytes a return pops.</summary>
    public long Operand;

    /// <summary>Run address of what comes next; the index of its step is looked up.</summary>
    public ulong NextAddress;

    /// <summary>The step that comes next, -1 until it is needed.</summary>
    public int Next;

    /// <summary>Registers written, wholly, in part or perhaps: bits of <see cref="Machine.RegisterSet"/>.</summary>
    public uint Writes;

    /// <summary>Parts copied one to one: destination in bits 0–3, source in bits 4–7, parts in bits 8–10.</summary>
    public ushort Copy;

    /// <summary>A second copy, as for <see cref="Copy"/>.</summary>
    public ushort Copy2;

    public StepOp Op;
    public StepFlow Flow;

    /// <summary>The register moved, pushed, loaded or stored; <see cref="NoRegister"/> where there is none.</summary>
    public sbyte Register;

    /// <summary>The source of a move, or the base of an address.</summary>
    public sbyte Base;

    /// <summary>Bytes written to memory; 0 where that is not known.</summary>
    public byte Size;

    /// <summary>Whether the address has a part that is not followed: an index.</summary>
    public bool HasIndex;

    /// <summary>Whether control may go elsewhere instead of executing it.</summary>
    public bool HasEdges;

    /// <summary>Whether control goes on elsewhere than at the byte behind it.</summary>
    public bool IsDiverted;

    public const sbyte NoRegister = -1;

    /// <summary>The flags, as a register whose value can be pushed and popped.</summary>
    public const sbyte FlagsRegister = 16;

    /// <summary>The parts live before the step for the sake of those live after it; <see cref="Use"/> comes on top.</summary>
    public readonly ulong Before(ulong after) =>
        (after & ~Kill) | ((after & Needs) != 0 ? NeededUse : 0) | Copied(after, Copy) | Copied(after, Copy2);

    /// <summary>The parts that the step reads, given those live after it.</summary>
    public readonly ulong Reads(ulong after) => Use | ((after & Needs) != 0 ? NeededUse : 0) | Copied(after, Copy) | Copied(after, Copy2);

    public static ushort CopyOf(int to, int from, int parts) => (ushort)(to | from << 4 | parts << 8);

    private static ulong Copied(ulong after, ushort copy) =>
        ((after >> (3 * (copy & 15))) & ((ulong)copy >> 8)) << (3 * ((copy >> 4) & 15));
}
