using System.Collections;
using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>How a batch ended.</summary>
public enum SwitchStatus : byte
{
    /// <summary>Something was not in order; nothing was written.</summary>
    Refused,

    /// <summary>Every site and slot does what was asked for, and no processor starts an old body any more.</summary>
    Applied,

    /// <summary>Something failed on the way; everything written was taken back.</summary>
    RolledBack,

    /// <summary>
    /// Something failed on the way and could not be taken back everywhere. The code runs: each site holds an old or a new body.
    /// </summary>
    Faulted,
}

/// <summary>What became of a site in a batch.</summary>
public enum SiteChange : byte
{
    /// <summary>It held the wanted bytes before.</summary>
    AlreadyThere,

    /// <summary>It was written.</summary>
    Written,

    /// <summary>
    /// It stays indirect, because it could be changed only at quiescence, now or later: it does the right thing through its slot.
    /// </summary>
    KeptIndirect,

    /// <summary>It was not reached, or the batch was refused.</summary>
    NotWritten,

    /// <summary>It was written and taken back.</summary>
    RolledBack,

    /// <summary>It was written and could not be taken back.</summary>
    Faulted,

    /// <summary>It is linked, and keeps its own target whatever its slot does. See <see cref="SwitchOptions.OverridesLinks"/>.</summary>
    KeptLink,

    /// <summary>
    /// It got its emitted call back and does the operation through its slot, because it can't do it itself;
    /// <see cref="SiteOutcome.Reason"/> says why: the target is out of reach, destroys too
    /// much, or the like.
    /// </summary>
    MadeIndirect,
}

/// <summary>What a batch did at a site.</summary>
public readonly struct SiteOutcome
{
    private readonly OutcomeRecord _record;

    internal SiteOutcome(LiveSite site, OutcomeRecord record)
    {
        Site = site;
        _record = record;
    }

    /// <summary>The site.</summary>
    public LiveSite Site { get; }

    /// <summary>What became of it.</summary>
    public SiteChange Change => _record.Change;

    /// <summary>The form the wanted bytes have.</summary>
    public LiveForm Form => _record.Form;

    /// <summary>What the backend does there.</summary>
    public PatchAction Action => _record.Action;

    /// <summary>Why it stays indirect, where it does.</summary>
    public PatchReason Reason => _record.Reason;

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Site.Address} {Site.Slot} {Change}: {Form} {Action}{(Reason == PatchReason.None ? "" : $" ({Reason})")}");
}

/// <summary>
/// What a batch did: how it ended, how much it wrote, and what became of every site, blocks in the order they were emitted, sites in order
/// of address.
/// </summary>
public sealed class SwitchResult : IReadOnlyList<SiteOutcome>
{
    private readonly CodeBlock[] _blocks;
    private readonly OutcomeRecord[] _outcomes;
    private int _alreadyThere = -1;

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
        MadeIndirect = report.MadeIndirect;
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

    /// <summary>Number of sites that the batch was about.</summary>
    public int Count => _outcomes.Length;

    /// <summary>
    /// Number of sites that were given the bytes of what was asked for. Those in <see cref="MadeIndirect"/> are not counted.
    /// </summary>
    public int Written { get; }

    /// <summary>Number of sites that held the wanted bytes before.</summary>
    public int AlreadyThere =>
        _alreadyThere >= 0 ? _alreadyThere : _alreadyThere = Array.FindAll(_outcomes, static o => o.Change == SiteChange.AlreadyThere).Length;

    /// <summary>Number of sites that were given their emitted call back, because they can't do the operation themselves.</summary>
    public int MadeIndirect { get; }

    /// <summary>Number of sites that stay indirect because they can be changed only at quiescence.</summary>
    public int KeptIndirect { get; }

    /// <summary>Number of sites that keep a target of their own.</summary>
    public int KeptLinks { get; }

    /// <summary>Number of slots that were given another function.</summary>
    public int SlotsWritten { get; }

    /// <summary>Number of barriers that were run.</summary>
    public int Barriers { get; }

    /// <summary>The weakest barrier that was run; <see cref="BarrierKind.None"/> where there was none.</summary>
    public BarrierKind Barrier { get; }

    /// <summary>Time from the first decision to the last barrier.</summary>
    public TimeSpan Elapsed { get; }

    /// <summary>Findings, errors first: why the batch was refused or failed; warnings where it went well.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; }

    /// <summary>What became of a site.</summary>
    /// <param name="index">0 to <see cref="Count"/> - 1.</param>
    /// <returns>The outcome.</returns>
    public SiteOutcome this[int index] => new(new LiveSite(_blocks[_outcomes[index].Block], _outcomes[index].Site), _outcomes[index]);

    /// <inheritdoc/>
    public IEnumerator<SiteOutcome> GetEnumerator()
    {
        for (int i = 0; i < Count; i++)
        {
            yield return this[i];
        }
    }

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <inheritdoc/>
    public override string ToString()
    {
        string indirect = MadeIndirect == 0 ? "" : $"{MadeIndirect.ToString(CultureInfo.InvariantCulture)} made indirect, ";
        string links = KeptLinks == 0 ? "" : $"{KeptLinks.ToString(CultureInfo.InvariantCulture)} kept links, ";
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{Target}: {Status}, {Written} of {Count} sites written, {indirect}{KeptIndirect} kept indirect, {links}{SlotsWritten} slots, {Barriers} barriers ({Barrier}), {Elapsed.TotalMicroseconds:0.0} us");
    }
}

/// <summary>What is decided for a site, and what becomes of it, in 12 bytes.</summary>
internal struct OutcomeRecord
{
    public int Block;
    public int Site;
    public LiveForm Form;
    private byte _action;
    private byte _reason;
    private byte _changeAndState;

    // Public enums are int, and a batch has one of these for each site.
    public PatchAction Action
    {
        readonly get => (PatchAction)_action;
        set => _action = (byte)value;
    }

    public PatchReason Reason
    {
        readonly get => (PatchReason)_reason;
        set => _reason = (byte)value;
    }

    public SiteChange Change
    {
        readonly get => (SiteChange)(_changeAndState & 0xf);
        set => _changeAndState = (byte)((_changeAndState & 0xf0) | (int)value);
    }

    /// <summary>The state it has when all is well.</summary>
    public LiveSiteState State
    {
        readonly get => (LiveSiteState)(_changeAndState >> 4);
        set => _changeAndState = (byte)((_changeAndState & 0xf) | (int)value << 4);
    }

    public void Set(SiteChange change, LiveSiteState state) => _changeAndState = (byte)((int)change | (int)state << 4);
}

/// <summary>What a batch counts while it goes on.</summary>
internal sealed class BatchReport(string target, SwitchMode mode)
{
    private DiagnosticList? _found;

    public string Target { get; } = target;

    public SwitchMode Mode { get; } = mode;

    public int Written { get; set; }

    public int MadeIndirect { get; set; }

    public int KeptIndirect { get; set; }

    public int KeptLinks { get; set; }

    public int SlotsWritten { get; set; }

    public int Barriers { get; private set; }

    public BarrierKind Barrier { get; private set; }

    public TimeSpan Elapsed { get; set; }

    public bool HasErrors => _found is { HasErrors: true };

    public IReadOnlyList<PatchDiagnostic> Diagnostics => _found?.ToList() ?? [];

    public void Add(PatchDiagnostic diagnostic) => (_found ??= new()).Add(diagnostic);

    public void AddBarriers(int count, BarrierKind kind)
    {
        Barrier = Barriers == 0 || kind < Barrier ? kind : Barrier;
        Barriers += count;
    }
}
