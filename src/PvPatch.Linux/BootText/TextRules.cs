using PvPatch.Linux.Eras;

namespace PvPatch.Linux.BootText;

/// <summary>What kernels of one time do to their text, as data: the order of the mechanisms, and what they write.</summary>
/// <remarks>
/// The order is that of a predictor, not of the boot: static calls and jump labels have their last values at the place of their first
/// pass; trampolines come last.
/// </remarks>
internal sealed record TextRules
{
    private TextRules(string name, params TextMechanism[] order)
    {
        Name = name;
        Order = order;
    }

    /// <summary>The name.</summary>
    public string Name { get; private init; }

    /// <summary>The mechanisms in the order in which they are applied.</summary>
    public IReadOnlyList<TextMechanism> Order { get; private init; }

    /// <summary>The rules of alternatives.</summary>
    public AlternativeRules Alternatives { get; private init; } = AlternativeRules.Linux61;

    /// <summary>How inline branches fill the sites of retpolines.</summary>
    public RetpolineFill RetpolineFill { get; private init; }

    /// <summary>The distance from one page of ITS thunks to the next: two pages, one a guard, or one.</summary>
    public int ItsPageStep { get; private init; } = 0x2000;

    /// <summary>Whether calls at the addresses of alternatives go through call thunks, besides those of the table of calls.</summary>
    public bool CallThunksAtAlternatives { get; private init; }

    /// <summary>
    /// Whether jump labels are 5 bytes each and their nops, which the file has in another form, are all rewritten (to 5.12).
    /// </summary>
    public bool RewritesJumpLabels { get; private init; }

    /// <summary>What a sealed <c>endbr64</c> becomes; empty where nothing is sealed.</summary>
    public IReadOnlyList<byte> EndbrPoison { get; private init; } = [];

    /// <summary>5.10 to 5.12, measured in 5.10.</summary>
    public static TextRules Linux510 { get; } = new("linux-5.10",
        TextMechanism.Relocation, TextMechanism.JumpLabel, TextMechanism.StaticCall, TextMechanism.Ftrace, TextMechanism.XenIret,
        TextMechanism.Retpoline, TextMechanism.Return, TextMechanism.Alternative, TextMechanism.SmpLock, TextMechanism.Paravirt,
        TextMechanism.StaticTrampoline)
    {
        RewritesJumpLabels = true,
    };

    /// <summary>5.13 to 6.7, measured in 6.1.</summary>
    public static TextRules Linux61 { get; } = new("linux-6.1",
        TextMechanism.Relocation, TextMechanism.JumpLabel, TextMechanism.StaticCall, TextMechanism.Ftrace, TextMechanism.XenIret,
        TextMechanism.Paravirt, TextMechanism.Retpoline, TextMechanism.Return, TextMechanism.Alternative, TextMechanism.SmpLock,
        TextMechanism.StaticTrampoline)
    {
        RetpolineFill = RetpolineFill.OneTrapThenNops,
    };

    /// <summary>6.8 to 6.18, measured in 6.12. Paravirt sites are alternatives.</summary>
    public static TextRules Linux612 { get; } = new("linux-6.12",
        TextMechanism.Relocation, TextMechanism.JumpLabel, TextMechanism.StaticCall, TextMechanism.Ftrace, TextMechanism.XenIret,
        TextMechanism.Retpoline, TextMechanism.Return, TextMechanism.Alternative, TextMechanism.Paravirt, TextMechanism.CallThunk,
        TextMechanism.EndbrSeal, TextMechanism.SmpLock, TextMechanism.RuntimeConstant, TextMechanism.StaticTrampoline)
    {
        Alternatives = AlternativeRules.Linux612,
        RetpolineFill = RetpolineFill.OneTrapThenNops,
        CallThunksAtAlternatives = true,
        EndbrPoison = [0x66, 0x0f, 0x1f, 0x00], // nopw (%rax)
    };

    /// <summary>After 6.18, measured in 7.2: call thunks come before alternatives.</summary>
    public static TextRules Linux72 { get; } = Linux612 with
    {
        Name = "linux-7.2",
        Order =
        [
            TextMechanism.Relocation, TextMechanism.JumpLabel, TextMechanism.StaticCall, TextMechanism.Ftrace, TextMechanism.XenIret,
            TextMechanism.Retpoline, TextMechanism.Return, TextMechanism.CallThunk, TextMechanism.Alternative, TextMechanism.Paravirt,
            TextMechanism.EndbrSeal, TextMechanism.SmpLock, TextMechanism.RuntimeConstant, TextMechanism.StaticTrampoline,
        ],
        RetpolineFill = RetpolineFill.TrapsOrPrefixes,
        ItsPageStep = 0x1000,
        CallThunksAtAlternatives = false,
        EndbrPoison = [0x0f, 0x1f, 0x40, 0xd6], // nopl -42(%rax)
    };

    /// <summary>
    /// The rules that an image shows: by its era, and by its lock slots, which are a table of their own after 6.18;
    /// <see langword="null"/> for kernels that nobody has compared with a boot: those before 5.10, and those of 32 bits.
    /// </summary>
    public static TextRules? Of(KernelImage image) =>
        image.Bitness != 64 ? null
        : image.Era.Source == SiteSource.DirectCallAlternatives
            ? (image.Symbols is not null && image.Symbols.TryGetAddress("pv_ops_lock", out _) ? Linux72 : Linux612)
        : image.Era == KernelEra.Linux61 ? Linux61
        : image.Era == KernelEra.Linux510 ? Linux510
        : null;

    /// <inheritdoc/>
    public override string ToString() => Name;
}
