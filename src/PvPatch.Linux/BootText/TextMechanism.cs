namespace PvPatch.Linux.BootText;

/// <summary>Something that rewrites kernel text between the file and the running kernel. Kept in a byte for each byte of text.</summary>
internal enum TextMechanism : byte
{
    /// <summary>Nothing wrote the byte: it is the file's.</summary>
    None,

    /// <summary>KASLR relocations, applied by the decompressor.</summary>
    Relocation,

    /// <summary>Jump labels (static keys).</summary>
    JumpLabel,

    /// <summary>Static call sites.</summary>
    StaticCall,

    /// <summary>Trampolines of static calls.</summary>
    StaticTrampoline,

    /// <summary>Calls of <c>__fentry__</c>.</summary>
    Ftrace,

    /// <summary>Paravirt sites, and the alternatives that are such sites.</summary>
    Paravirt,

    /// <summary>Calls and jumps through retpolines.</summary>
    Retpoline,

    /// <summary>Jumps to the return thunk.</summary>
    Return,

    /// <summary>Alternatives.</summary>
    Alternative,

    /// <summary>Call depth tracking: calls and the thunks in front of functions.</summary>
    CallThunk,

    /// <summary>Lock prefixes.</summary>
    SmpLock,

    /// <summary>ENDBR instructions that nothing jumps to.</summary>
    EndbrSeal,

    /// <summary>Runtime constants.</summary>
    RuntimeConstant,

    /// <summary>The jump at <c>early_xen_iret_patch</c>.</summary>
    XenIret,
}

/// <summary>The names of mechanisms in reports and on the command line.</summary>
internal static class TextMechanisms
{
    private static readonly string[] s_names =
    [
        "none", "relocation", "jump-label", "static-call", "static-trampoline", "ftrace", "paravirt", "retpoline", "return", "alternative",
        "call-thunk", "smp-lock", "endbr", "runtime-constant", "xen-iret",
    ];

    /// <summary>The number of members of <see cref="TextMechanism"/>, <see cref="TextMechanism.None"/> included.</summary>
    public static int Count => s_names.Length;

    /// <summary>The name of a mechanism.</summary>
    public static string NameOf(TextMechanism mechanism) => s_names[(int)mechanism];
}
