using System.Globalization;
using System.Runtime.InteropServices;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>How applying or reverting a plan ended.</summary>
public enum ApplyStatus : byte
{
    /// <summary>A check failed; nothing was written.</summary>
    Refused,

    /// <summary>Every site and slot holds what the plan says. In running code no processor starts an old body any more.</summary>
    Applied,

    /// <summary>Writing running code failed half way; everything written was taken back.</summary>
    RolledBack,

    /// <summary>
    /// Writing running code failed half way and could not be taken back everywhere: each site holds its old or its new body, or, where it
    /// is <see cref="SiteChange.Faulted"/>, perhaps what something else wrote there.
    /// </summary>
    Faulted,
}

/// <summary>What became of a site of running code.</summary>
public enum SiteChange : byte
{
    /// <summary>It held the wanted bytes before.</summary>
    AlreadyThere,

    /// <summary>It was written.</summary>
    Written,

    /// <summary>It stays indirect, because it can be changed only at quiescence: it does the operation through its slot.</summary>
    KeptIndirect,

    /// <summary>It was not reached, or the changes were refused.</summary>
    NotWritten,

    /// <summary>It was written and taken back.</summary>
    RolledBack,

    /// <summary>It was written and could not be taken back.</summary>
    Faulted,

    /// <summary>It is linked and keeps its own target, whatever its slot does.</summary>
    KeptLink,

    /// <summary>
    /// It got its emitted call back and does the operation through its slot, because it can't do it itself;
    /// <see cref="SiteOutcome.Reason"/>
    /// says why: the target is out of reach, destroys too much, or the like.
    /// </summary>
    MadeIndirect,
}

/// <summary>The outcome at one site of running code.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)] // 12 bytes: results of large switches are kept
public readonly struct SiteOutcome
{
    private readonly VirtualAddress _address;
    private readonly uint _what; // change, action and reason in a byte each: one store

    internal SiteOutcome(VirtualAddress address, SiteChange change, PatchAction action, PatchReason reason)
    {
        _address = address;
        _what = (byte)change | (uint)(byte)action << 8 | (uint)(byte)reason << 16;
    }

    /// <summary>Run address of the site's first byte.</summary>
    public VirtualAddress Address => _address;

    /// <summary>What became of the site.</summary>
    public SiteChange Change => (SiteChange)(byte)_what;

    /// <summary>The planned action.</summary>
    public PatchAction Action => (PatchAction)(byte)(_what >> 8);

    /// <summary>Why the site stays indirect, where it does.</summary>
    public PatchReason Reason => (PatchReason)(byte)(_what >> 16);

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Address} {Change}: {Action}{(Reason == PatchReason.None ? "" : $" ({Reason})")}");
}

/// <summary>Result of applying or reverting a plan, in an image or in running code: status, counts, diagnostics.</summary>
/// <remarks>
/// Barriers, slots, links, kept and made indirect sites and outcomes belong to running code; for an image the counts are 0 and the list is
/// empty.
/// </remarks>
public readonly struct ApplyResult
{
    private readonly string? _target;
    private readonly ApplyReport? _report;

    /// <summary>An image was written.</summary>
    internal ApplyResult(string target, int count, int written, TimeSpan elapsed)
    {
        _target = target;
        Status = ApplyStatus.Applied;
        Count = count;
        Written = written;
        AlreadyThere = count - written;
        Elapsed = elapsed;
    }

    /// <summary>What a report says, which is not changed from here on.</summary>
    internal ApplyResult(ApplyStatus status, ApplyReport report)
    {
        _target = report.Target;
        _report = report;
        Status = status;
        Count = report.Count;
        Written = report.Written;
        AlreadyThere = report.AlreadyThere;
        Elapsed = report.Elapsed;
    }

    /// <summary>How it ended.</summary>
    public ApplyStatus Status { get; }

    /// <summary>Whether every site and slot now holds what was asked for.</summary>
    public bool Succeeded => Status == ApplyStatus.Applied;

    /// <summary>Name of what was applied: the plan's backend, or the set of changes.</summary>
    public string Target => _target ?? "";

    /// <summary>Number of sites in the plan; 0 where changes were refused before any site was decided.</summary>
    public int Count { get; }

    /// <summary>Number of sites that were given the wanted bytes. Those in <see cref="MadeIndirect"/> are not counted.</summary>
    public int Written { get; }

    /// <summary>Number of sites that held the wanted bytes before.</summary>
    public int AlreadyThere { get; }

    /// <summary>Number of sites that were given their emitted call back, because they can't do the operation themselves.</summary>
    public int MadeIndirect => _report?.MadeIndirect ?? 0;

    /// <summary>Number of sites that stay indirect because they can be changed only at quiescence.</summary>
    public int KeptIndirect => _report?.KeptIndirect ?? 0;

    /// <summary>Number of sites that keep a target of their own.</summary>
    public int KeptLinks => _report?.KeptLinks ?? 0;

    /// <summary>Number of slots that were given another function.</summary>
    public int SlotsWritten => _report?.SlotsWritten ?? 0;

    /// <summary>Number of barriers that were run.</summary>
    public int Barriers => _report?.Barriers ?? 0;

    /// <summary>The weakest barrier that was run; <see cref="BarrierKind.None"/> where none was.</summary>
    public BarrierKind Barrier => _report?.Barrier ?? BarrierKind.None;

    /// <summary>
    /// Time from the first check to the last store or barrier; zero where changes were refused before any site was decided.
    /// </summary>
    public TimeSpan Elapsed { get; }

    /// <summary>
    /// Findings, errors first: why nothing was written or why it was taken back; warnings where it was applied. Up to a hundred, and one
    /// that counts the rest.
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics => _report?.Diagnostics ?? [];

    /// <summary>
    /// The outcome at each site of running code, blocks in the order they were emitted, sites in order of address.
    /// <c>CodeArena.TryFindSite</c> finds the site.
    /// </summary>
    public IReadOnlyList<SiteOutcome> Outcomes => _report?.Outcomes ?? [];

    /// <inheritdoc/>
    public override string ToString()
    {
        string text = string.Create(CultureInfo.InvariantCulture, $"{Target}: {Status}, {Written} of {Count} sites written");
        return _report is null
            ? string.Create(CultureInfo.InvariantCulture, $"{text}, {AlreadyThere} already there, {Elapsed.TotalMicroseconds:0.0} us")
            : string.Create(CultureInfo.InvariantCulture, $"{text}, {_report}{Elapsed.TotalMicroseconds:0.0} us");
    }
}

/// <summary>What is counted and found while a plan is applied to running code, or why one is refused.</summary>
internal sealed class ApplyReport(string target)
{
    private DiagnosticList? _found;
    private IReadOnlyList<PatchDiagnostic>? _sorted;

    public string Target { get; } = target;

    public int Count { get; set; }

    public int Written { get; set; }

    public int AlreadyThere { get; set; }

    public int MadeIndirect { get; set; }

    public int KeptIndirect { get; set; }

    public int KeptLinks { get; set; }

    public int SlotsWritten { get; set; }

    public int Barriers { get; private set; }

    public BarrierKind Barrier { get; private set; }

    public TimeSpan Elapsed { get; set; }

    public IReadOnlyList<SiteOutcome> Outcomes { get; set; } = [];

    public bool HasErrors => _found is { HasErrors: true };

    public IReadOnlyList<PatchDiagnostic> Diagnostics => _sorted ??= _found?.ToList() ?? [];

    public ApplyReport Add(PatchDiagnostic diagnostic)
    {
        _sorted = null;
        (_found ??= new()).Add(diagnostic);
        return this;
    }

    public void AddBarriers(int count, BarrierKind kind)
    {
        Barrier = Barriers == 0 || kind < Barrier ? kind : Barrier;
        Barriers += count;
    }

    /// <summary>What only running code has, for <see cref="ApplyResult.ToString"/>.</summary>
    public override string ToString()
    {
        string indirect = MadeIndirect == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $"{MadeIndirect} made indirect, ");
        string links = KeptLinks == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $"{KeptLinks} kept links, ");
        return string.Create(CultureInfo.InvariantCulture,
            $"{indirect}{KeptIndirect} kept indirect, {links}{SlotsWritten} slots, {Barriers} barriers ({Barrier}), ");
    }
}
