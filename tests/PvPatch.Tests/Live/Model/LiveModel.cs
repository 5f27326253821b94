using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Tests.Live.Behaviour;

namespace PvPatch.Tests.Live.Model;

internal enum Verb
{
    Emit,
    Bind,
    Switch,
    SwitchSlot,
    Link,
    Unlink,
    Retire,
    RetireTarget,
    Reclaim,
    Revert,
    DisposePatcher,

    /// <summary>Behind everything else: nobody is inside, and what is gone must be forgotten.</summary>
    ReclaimAll,

    /// <summary>Behind everything else: what every block holds, is said to hold, and does.</summary>
    Observe,
}

/// <summary>An operation: what, on which block, with which backend, target or shape.</summary>
internal readonly record struct Op(Verb Verb, int Block = 0, int Argument = 0)
{
    public override string ToString() => $"{Verb}({Block},{Argument})";
}

/// <summary>An operation that was run: when, and what came of it.</summary>
internal sealed record Event(Op Op, string Block, long Start, long End, string Result)
{
    public override string ToString() => $"{Op} on {Block} -> {Result}";
}

/// <summary>
/// The sequential model: backends of the slots, states and targets of the sites. A step says whether an operation may give a result, and
/// what stands behind it.
/// </summary>
internal sealed class LiveModel(LiveHost host, Backend[] backends)
{
    public const string Applied = "applied";

    public static readonly Shape[][] Shapes =
    [
        [Shape.Atomic(), Shape.Atomic(1)],
        [Shape.Guarded(), Shape.Forwarded(1)],
        [Shape.Atomic(0, narrow: true), Shape.Guarded(1)],
        [Shape.Fixed(), Shape.Atomic(1)],
        [Shape.Fixed(0, narrow: true), Shape.Guarded(1, narrow: true)],
        [new Shape(0, Budget: 15), new Shape(1, Budget: 30)],
    ];

    private Dictionary<string, Block> _blocks = [];
    private Backend?[] _bound = [null, null];
    private bool[] _targetIsGone = [false, false];
    private bool _disposed;

    private sealed record Block(int Shape, LiveSiteState First, LiveSiteState Second, int Target, bool Gone, bool Forgotten)
    {
        public LiveSiteState this[int site] => site == 0 ? First : Second;
    }

    public LiveModel Clone() => new(host, backends)
    {
        _blocks = new(_blocks),
        _bound = [.. _bound],
        _targetIsGone = [.. _targetIsGone],
        _disposed = _disposed,
    };

    /// <summary>Whether an operation may have given what it gave; the state is the one behind it.</summary>
    public bool Step(Event e)
    {
        bool applied = e.Result == Applied;
        bool there = _blocks.TryGetValue(e.Block, out Block? block);
        var reasons = new List<string>();
        bool mayBeRefused = false;
        if (_disposed && e.Op.Verb is Verb.Bind or Verb.Switch or Verb.SwitchSlot or Verb.Link or Verb.Unlink or Verb.Revert)
        {
            reasons.Add(DiagnosticCodes.ArenaDisposed);
        }

        if (there && block!.Gone && e.Op.Verb is Verb.Bind or Verb.Link or Verb.Unlink or Verb.Retire)
        {
            reasons.Add(DiagnosticCodes.BlockRetired);
        }

        switch (e.Op.Verb)
        {
            case Verb.Emit when NeedsKept(e.Op.Argument) && IsVector(_bound[0]):
                reasons.Add(DiagnosticCodes.SlotFunction);
                break;
            case Verb.Switch or Verb.SwitchSlot when IsVector(backends[e.Op.Argument]) && (e.Op.Verb == Verb.Switch || e.Op.Block == 0):
                Block[] narrow = [.. _blocks.Values.Where(static b => NeedsKept(b.Shape))];
                if (Array.Exists(narrow, static b => !b.Gone && b.First != LiveSiteState.Linked))
                {
                    reasons.Add(DiagnosticCodes.SlotFunction);
                }
                else
                {
                    mayBeRefused = Array.Exists(narrow, static b => !b.Forgotten);
                }

                break;
            case Verb.Link:
                // Refused as long as the arena knows what the address was; behind that it is the host's promise, and nothing runs it here.
                mayBeRefused = _targetIsGone[e.Op.Argument];
                if (there && Shapes[block!.Shape][0].Start == 63)
                {
                    reasons.Add(DiagnosticCodes.NeedsQuiescence);
                }

                break;
            case Verb.Unlink when there && NeedsKept(block!.Shape) && IsVector(_bound[0]):
            case Verb.Revert when IsVector(_bound[0]) && _blocks.Values.Any(static b => !b.Gone && NeedsKept(b.Shape)):
                reasons.Add(DiagnosticCodes.SlotFunction);
                break;
            case Verb.RetireTarget:
                if (_targetIsGone[e.Op.Argument])
                {
                    reasons.Add(DiagnosticCodes.BlockRetired);
                }
                else if (_blocks.Values.Any(b => !b.Gone && b.First == LiveSiteState.Linked && b.Target == e.Op.Argument))
                {
                    reasons.Add(DiagnosticCodes.BlockLinked);
                }

                break;
            case Verb.Observe:
                return e.Result == Observed();
        }

        if (reasons.Count > 0 || (!applied && mayBeRefused))
        {
            return !applied && (mayBeRefused || reasons.Contains(e.Result));
        }

        if (applied)
        {
            Apply(e, block);
        }

        return applied;
    }

    private void Apply(Event e, Block? block)
    {
        switch (e.Op.Verb)
        {
            case Verb.Emit:
                _blocks[e.Block] = new Block(e.Op.Argument, LiveSiteState.Original, LiveSiteState.Original, 0, false, false);
                break;
            case Verb.Bind:
                _blocks[e.Block] = Rebound(block!, 0, 1);
                break;
            case Verb.Switch:
                _bound = [backends[e.Op.Argument], backends[e.Op.Argument]];
                ForAll(b => Rebound(b, 0, 1));
                break;
            case Verb.SwitchSlot:
                _bound[e.Op.Block] = backends[e.Op.Argument];
                ForAll(b => Rebound(b, e.Op.Block));
                break;
            case Verb.Link:
                _blocks[e.Block] = block! with { First = LiveSiteState.Linked, Target = e.Op.Argument };
                break;
            case Verb.Unlink:
                _blocks[e.Block] = block! with { First = _bound[0] is null ? LiveSiteState.Original : LiveSiteState.Bound };
                break;
            case Verb.Revert:
                ForAll(static b => b with { First = LiveSiteState.Original, Second = LiveSiteState.Original });
                break;
            case Verb.Retire:
                _blocks[e.Block] = block! with { Gone = true };
                break;
            case Verb.RetireTarget:
                _targetIsGone[e.Op.Argument] = true;
                break;
            case Verb.DisposePatcher:
                _disposed = true;
                break;
            case Verb.ReclaimAll:
                foreach ((string name, Block gone) in _blocks.ToArray())
                {
                    _blocks[name] = gone with { Forgotten = gone.Gone };
                }

                break;
        }
    }

    private Block Rebound(Block block, params ReadOnlySpan<int> slots)
    {
        foreach (int slot in slots)
        {
            block = _bound[slot] is null || block[slot] == LiveSiteState.Linked ? block
                : slot == 0 ? block with { First = LiveSiteState.Bound } : block with { Second = LiveSiteState.Bound };
        }

        return block;
    }

    private void ForAll(Func<Block, Block> change)
    {
        foreach ((string name, Block block) in _blocks.ToArray())
        {
            _blocks[name] = block.Gone ? block : change(block);
        }
    }

    private string Observed()
    {
        IEnumerable<string> blocks = _blocks.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(b =>
        {
            (string name, Block block) = b;
            string what = block.Gone ? "gone" : $"{block.First} {block.Second}";
            int? first = block.First == LiveSiteState.Linked ? 11 + block.Target : ResultOf(0);
            bool leadsNowhere = block.First == LiveSiteState.Linked && _targetIsGone[block.Target];
            return !block.Gone && !leadsNowhere && first is int one && ResultOf(1) is int two
                ? $"{name}: {what} {one} {two} kept" : $"{name}: {what}";
        });
        string current = _disposed || !ReferenceEquals(_bound[0], _bound[1]) ? "-" : _bound[0]?.Name ?? "-";
        return $"{string.Join("; ", blocks)}; {current}";
    }

    private int? ResultOf(int slot) => _bound[slot] is Backend backend ? host.Backends.ResultOf(backend, slot) : null;

    private static bool NeedsKept(int shape) => Shapes[shape][0].Narrow;

    private bool IsVector(Backend? backend) => ReferenceEquals(backend, host.Backends.Vector);
}
