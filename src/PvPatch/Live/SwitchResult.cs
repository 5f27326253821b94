using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>How a batch ended.</summary>
public enum SwitchStatus : byte
{
    /// <summary>Something was not in order; nothing was written.</summary>
    Refused,

    /// <summary>Every site does what was asked for, and no processor starts an old body any more.</summary>
    Applied,

    /// <summary>Something failed on the way; everything written was taken back.</summary>
    RolledBack,

    /// <summary>Something failed on the way and could not be taken back everywhere. The code runs: each site holds an old or a new body.</summary>
    Faulted,
}

/// <summary>What became of a site in a batch.</summary>
public enum SiteChange : byte
{
    /// <summary>It held the wanted bytes before.</summary>
    AlreadyThere,

    /// <summary>It was written.</summary>
    Written,

    /// <summary>It can be changed only at quiescence, and stays indirect: it does the right thing through its slot.</summary>
    KeptIndirect,

    /// <summary>It was not reached, or the batch was refused.</summary>
    NotWritten,

    /// <summary>It was written and taken back.</summary>
    RolledBack,

    /// <summary>It was written and could not be taken back.</summary>
    Faulted,

    /// <summary>It is linked, and keeps its own target whatever its slot does. See <see cref="SwitchOptions.OverridesLinks"/>.</summary>
    KeptLink,
}

/// <summary>What a batch did at a site.</summary>
/// <param name="Site">The site.</param>
/// <param name="Change">What became of it.</param>
/// <param name="Form">The form the wanted bytes have.</param>
/// <param name="Action">What the backend does there.</param>
/// <param name="Reason">Why it stays indirect, where it does.</param>
public readonly record struct SiteOutcome(LiveSite Site, SiteChange Change, LiveForm Form, PatchAction Action, PatchReason Reason);

/// <summary>What a batch did: how it ended, how much it wrote, what became of every site.</summary>
public sealed class SwitchResult
{
    private readonly CodeBlock[] _blocks;
    private readonly OutcomeRecord[] _outcomes;

    internal SwitchResult(SwitchStatus status, BatchReport report, CodeBlock[] blocks, OutcomeRecord[] outcomes)
    {
        Status = status;
        Target = report.Target;
        Mode = report.Mode;
        Barriers = report.Barriers;
        Barrier = report.Barrier;
        SlotsWritten = report.SlotsWritten;
        Elapsed = report.Elapsed;
        Diagnostics = report.Diagnostics;
        _blocks = blocks;
        _outcomes = outcomes;
        Written = report.Written;
        KeptIndirect = report.KeptIndirect;
        KeptLinks = report.KeptLinks;
    }

    /// <summary>How the batch ended.</summary>
    public SwitchStatus Status { get; }

    /// <summary>Whether it did what was asked for.</summary>
    public bool Succeeded => Status == SwitchStatus.Applied;

    /// <summary>The name of what the sites were switched to.</summary>
    public string Target { get; }

    /// <summary>The mode asked for.</summary>
    public SwitchMode Mode { get; }

    /// <summary>How many sites the batch was about.</summary>
    public int Count => _outcomes.Length;

    /// <summary>How many sites were written.</summary>
    public int Written { get; }

    /// <summary>How many sites stay indirect because they can be changed only at quiescence.</summary>
    public int KeptIndirect { get; }

    /// <summary>How many sites keep a target of their own.</summary>
    public int KeptLinks { get; }

    /// <summary>How many slots were given another function.</summary>
    public int SlotsWritten { get; }

    /// <summary>How many barriers were run.</summary>
    public int Barriers { get; }

    /// <summary>The weakest barrier that was run; <see cref="BarrierKind.None"/> where there was none.</summary>
    public BarrierKind Barrier { get; }

    /// <summary>Time from the first decision to the last barrier.</summary>
    public TimeSpan Elapsed { get; }

    /// <summary>Findings, errors first: why the batch was refused or failed; warnings where it went well.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; }

    /// <summary>What became of a site.</summary>
    /// <param name="index">0 to <see cref="Count"/> - 1, blocks in the order they were emitted, sites in order of address.</param>
    /// <returns>The outcome.</returns>
    public SiteOutcome this[int index]
    {
        get
        {
            OutcomeRecord outcome = _outcomes[index];
            return new SiteOutcome(new LiveSite(_blocks[outcome.Block], outcome.Site), outcome.Change, outcome.Form, outcome.Action, outcome.Reason);
        }
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Target}: {Status}, {Written} of {Count} sites written, {KeptIndirect} kept indirect, {(KeptLinks == 0 ? "" : $"{KeptLinks} kept links, ")}{SlotsWritten} slots, {Barriers} barriers ({Barrier}), {Elapsed.TotalMicroseconds:0.0} us");
}

/// <summary>An outcome in 12 bytes.</summary>
internal struct OutcomeRecord
{
    public int Block;
    public int Site;
    public LiveForm Form;
    public PatchAction Action;
    public PatchReason Reason;
    private byte _changeAndState;

    public SiteChange Change
    {
        readonly get => (SiteChange)(_changeAndState & 0xf);
        set => _changeAndState = (byte)((_changeAndState & 0xf0) | (int)value);
    }

    public void Set(SiteChange change, SiteState state) => _changeAndState = (byte)((int)change | (int)state << 4);

    /// <summary>The state it has when all is well.</summary>
    public SiteState State
    {
        readonly get => (SiteState)(_changeAndState >> 4);
        set => _changeAndState = (byte)((_changeAndState & 0xf) | (int)value << 4);
    }
}

/// <summary>What a batch counts while it goes on.</summary>
internal sealed class BatchReport(string target, SwitchMode mode)
{
    private readonly DiagnosticList _found = new();

    public string Target { get; } = target;

    public SwitchMode Mode { get; } = mode;

    public int Written { get; set; }

    public int KeptIndirect { get; set; }

    public int KeptLinks { get; set; }

    public int SlotsWritten { get; set; }

    public int Barriers { get; private set; }

    public BarrierKind Barrier { get; private set; }

    public TimeSpan Elapsed { get; set; }

    public bool HasErrors => _found.HasErrors;

    public IReadOnlyList<PatchDiagnostic> Diagnostics => _found.ToList();

    public void Add(PatchDiagnostic diagnostic) => _found.Add(diagnostic);

    public void AddBarriers(int count, BarrierKind kind)
    {
        Barrier = Barriers == 0 || kind < Barrier ? kind : Barrier;
        Barriers += count;
    }
}
