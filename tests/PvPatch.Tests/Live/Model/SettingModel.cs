using System.Globalization;

namespace PvPatch.Tests.Live.Model;

internal enum SettingVerb
{
    Emit,
    Enable,
    Disable,
    Set,
    Target,

    /// <summary>A key enabled, a way chosen and a target given in one batch.</summary>
    Mixed,
    Retire,
    RetireTarget,
    Reclaim,
    DisposePatcher,

    /// <summary>Behind everything else: values, and what every block does.</summary>
    Observe,
}

/// <summary>An operation: on which key, way, target or block.</summary>
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
/// The sequential model of settings: counts of keys, the way, the target, and which blocks are gone. A step says whether an operation may
/// give a result, and what stands behind it.
/// </summary>
internal sealed class SettingModel
{
    public const string Applied = "applied";
    public const int Keys = 2;
    public const int Ways = 3;
    public const int Targets = 2; // behind them: nothing, gives 0

    private int[] _counts = new int[Keys];
    private bool[] _targetIsGone = new bool[Targets];
    private Dictionary<string, bool> _isGone = [];
    private int _way = -1;
    private int _target = Targets;
    private bool _disposed;

    public SettingModel Clone() => new()
    {
        _counts = [.. _counts],
        _targetIsGone = [.. _targetIsGone],
        _isGone = new(_isGone),
        _way = _way,
        _target = _target,
        _disposed = _disposed,
    };

    /// <summary>Whether an operation may have given what it gave; the state is the one behind it.</summary>
    public bool Step(SettingEvent e)
    {
        if (e.Op.Verb == SettingVerb.Observe)
        {
            return e.Result == Show(_counts, _way, _target, _isGone);
        }

        string? reason = Reason(e.Op, e.Block);
        if (reason is null)
        {
            Apply(e);
        }

        return e.Result == (reason ?? Applied);
    }

    /// <summary>What is seen of a state: values, then what each block gives.</summary>
    public static string Show(int[] counts, int way, int target, IReadOnlyDictionary<string, bool> isGone)
    {
        int keys = (counts[0] > 0 ? 1 : 0) | (counts[1] > 0 ? 2 : 0);
        int call = target switch { < Targets => target + 1, Targets => 7, _ => 0 };
        string does = Seen(keys & 1, keys, way + 1, call);
        return $"{string.Join('/', counts)} {way} {target}: " + string.Join(", ",
            isGone.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(b => $"{b.Key} {(b.Value ? "gone" : does)}"));
    }

    /// <summary>What a run of a block is written as.</summary>
    public static string Seen(int key, int keys, int way, int call) =>
        (key | keys << 4 | way << 8 | call << 12).ToString("x", CultureInfo.InvariantCulture);

    private string? Reason(SettingOp op, string block)
    {
        bool changes = op.Verb is SettingVerb.Enable or SettingVerb.Disable or SettingVerb.Set or SettingVerb.Target or SettingVerb.Mixed;
        int target = op.Argument % (Targets + 2);
        return changes && _disposed ? DiagnosticCodes.ArenaDisposed
            : op.Verb == SettingVerb.Disable && _counts[op.Argument % Keys] == 0 ? DiagnosticCodes.KeyCount
            : op.Verb is SettingVerb.Target or SettingVerb.Mixed && target < Targets && _targetIsGone[target] ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.Retire && _isGone[block] ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.RetireTarget && _targetIsGone[op.Argument % Targets] ? DiagnosticCodes.BlockRetired
            : op.Verb == SettingVerb.RetireTarget && _target == op.Argument % Targets ? DiagnosticCodes.BlockLinked
            : null;
    }

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
                _way = argument % (Ways + 1) - 1;
                break;
            case SettingVerb.Target:
                _target = argument % (Targets + 2);
                break;
            case SettingVerb.Mixed:
                _counts[argument % Keys]++;
                _way = argument % (Ways + 1) - 1;
                _target = argument % (Targets + 2);
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
