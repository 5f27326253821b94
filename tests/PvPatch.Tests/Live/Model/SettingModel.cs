using System.Globalization;

namespace PvPatch.Tests.Live.Model;

internal enum SettingVerb
{
    Emit,
    Enable,
    Disable,
    Set,
    Target,
    SetConstant,
    Use,
    Replace,

    /// <summary>A key enabled, a way chosen, targets given, a backend used and a constant set in one batch.</summary>
    Mixed,
    Retire,
    RetireTarget,
    Reclaim,
    DisposePatcher,

    /// <summary>Behind everything else: values, and what every block does.</summary>
    Observe,
}

/// <summary>An operation: on which key, way, target, backend or block.</summary>
internal readonly record struct SettingOp(SettingVerb Verb, int Argument = 0)
{
    public override string ToString() => $"{Verb}({Argument})";
}

/// <summary>An operation that was run: on which block, when, and what came of it.</summary>
internal sealed record SettingEvent(SettingOp Op, string Block, long Start, long End, string Result)
{
    public override string ToString() => $"{Op} on {Block} -> {Result}";
}

/// <summary>
/// The sequential model of settings: counts of keys, the way, the targets of a call and of an entry, the constant, the backend, and which
/// blocks are gone. A step says whether an operation may give a result, and what stands behind it.
/// </summary>
internal sealed class SettingModel
{
    public const string Applied = "applied";
    public const int Keys = 2;
    public const int Ways = 3;
    public const int Targets = 2; // behind them: nothing; for a call behind that: gives 0
    public const int Backends = 3;
    public const int Constants = 5;
    public const int Argument = 3; // what a site passes, and the sum of what two registers hold: the backend's number is added
    public const int Sum = 6;
    public const int OwnEntry = 9;

    private static readonly SettingVerb[] s_changes =
    [
        SettingVerb.Enable, SettingVerb.Disable, SettingVerb.Set, SettingVerb.Target, SettingVerb.SetConstant, SettingVerb.Use,
        SettingVerb.Replace, SettingVerb.Mixed,
    ];

    private int[] _counts = new int[Keys];
    private bool[] _targetIsGone = new bool[Targets];
    private Dictionary<string, bool> _isGone = [];
    private Values _values = Values.First;
    private bool _disposed;

    /// <summary>What settings other than keys are.</summary>
    public readonly record struct Values(int Way, int Target, int Entry, int Constant, int Backend)
    {
        public static Values First { get; } = new(-1, Targets, Targets, 0, 0);
    }

    public SettingModel Clone() => new()
    {
        _counts = [.. _counts],
        _targetIsGone = [.. _targetIsGone],
        _isGone = new(_isGone),
        _values = _values,
        _disposed = _disposed,
    };

    /// <summary>Whether an operation may have given what it gave; the state is the one behind it.</summary>
    public bool Step(SettingEvent e)
    {
        if (e.Op.Verb == SettingVerb.Observe)
        {
            return e.Result == Show(_counts, _values, _isGone);
        }

        string? reason = Reason(e.Op, e.Block);
        if (reason is null)
        {
            Apply(e);
        }

        return e.Result == (reason ?? Applied);
    }

    /// <summary>The way that an argument chooses; -1 for none. And so on.</summary>
    public static int WayOf(int argument) => argument % (Ways + 1) - 1;

    public static int TargetOf(int argument) => argument % (Targets + 2);

    public static int EntryOf(int argument) => argument % (Targets + 1);

    /// <summary>What is seen of a state: values, then what each block gives.</summary>
    public static string Show(int[] counts, Values values, IReadOnlyDictionary<string, bool> isGone)
    {
        int keys = (counts[0] > 0 ? 1 : 0) | (counts[1] > 0 ? 2 : 0);
        int call = values.Target switch { < Targets and int target => target + 1, Targets => 7, _ => 0 };
        int entry = values.Entry < Targets ? values.Entry + 1 : OwnEntry;
        long does = 0;
        foreach (int part in (int[])[keys & 1, keys, values.Way + 1, call, values.Constant, values.Backend + 1,
            Argument + values.Backend, Sum + values.Backend, entry])
        {
            does = does << 4 | (long)part;
        }

        return $"{string.Join('/', counts)} {values.Way} {values.Target} {values.Entry} {values.Constant}: " + string.Join(", ",
            isGone.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(b => $"{b.Key} {(b.Value ? "gone" : Seen(does))}"));
    }

    /// <summary>What a run of a block is written as.</summary>
    public static string Seen(long result) => result.ToString("x", CultureInfo.InvariantCulture);

    private string? Reason(SettingOp op, string block)
    {
        int target = op.Argument % Targets;
        return _disposed && s_changes.Contains(op.Verb) ? DiagnosticCodes.ArenaDisposed
            : op.Verb == SettingVerb.Disable && _counts[op.Argument % Keys] == 0 ? DiagnosticCodes.KeyCount
            : op.Verb is SettingVerb.Target or SettingVerb.Mixed && IsGone(TargetOf(op.Argument)) ? DiagnosticCodes.BlockRetired
            : op.Verb is SettingVerb.Replace or SettingVerb.Mixed && IsGone(EntryOf(op.Argument)) ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.Retire && _isGone[block] ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.RetireTarget && _targetIsGone[target] ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.RetireTarget && (_values.Target == target || _values.Entry == target) ? DiagnosticCodes.BlockLinked
            : null;
    }

    private bool IsGone(int target) => target < Targets && _targetIsGone[target];

    private void Apply(SettingEvent e)
    {
        int argument = e.Op.Argument;
        switch (e.Op.Verb)
        {
            case SettingVerb.Emit:
                _isGone[e.Block] = false;
                break;
            case SettingVerb.Enable:
                _counts[argument % Keys]++;
                break;
            case SettingVerb.Disable:
                _counts[argument % Keys]--;
                break;
            case SettingVerb.Set:
                _values = _values with { Way = WayOf(argument) };
                break;
            case SettingVerb.Target:
                _values = _values with { Target = TargetOf(argument) };
                break;
            case SettingVerb.SetConstant:
                _values = _values with { Constant = argument % Constants };
                break;
            case SettingVerb.Use:
                _values = _values with { Backend = argument % Backends };
                break;
            case SettingVerb.Replace:
                _values = _values with { Entry = EntryOf(argument) };
                break;
            case SettingVerb.Mixed:
                _counts[argument % Keys]++;
                _values = new(WayOf(argument), TargetOf(argument), EntryOf(argument), argument % Constants, argument % Backends);
                break;
            case SettingVerb.Retire:
                _isGone[e.Block] = true;
                break;
            case SettingVerb.RetireTarget:
                _targetIsGone[argument % Targets] = true;
                break;
            case SettingVerb.DisposePatcher:
                _disposed = true;
                break;
        }
    }
}
