using System.Runtime.CompilerServices;
using CsCheck;
using PvPatch.Tests.Live.Behaviour;

namespace PvPatch.Tests.Live.Model;

/// <summary>
/// Operations of several threads against the sequential model. A new seed each run; a failure prints it with the operations, their results,
/// and the smallest program found; in a process of its own, for a wrong byte may end it. CsCheck_Seed runs it again, CsCheck_Iter and
/// CsCheck_Time run more.
/// </summary>
public sealed class LiveModelTests
{
    private static readonly int[] s_plainShapes = [0, 1];
    private static readonly int[] s_plainBackends = [0, 1, 2, 3, 4];
    private static readonly int[] s_allShapes = [0, 1, 2, 3, 4, 5];
    private static readonly int[] s_allBackends = [0, 1, 2, 3, 4, 5];
    private static readonly Verb[] s_links = [Verb.Switch, Verb.SwitchSlot, Verb.Link, Verb.Unlink, Verb.Revert];
    private static readonly Verb[] s_all =
    [
        Verb.Emit, Verb.Emit, Verb.Emit, Verb.Bind, Verb.Switch, Verb.Switch, Verb.SwitchSlot, Verb.Link, Verb.Unlink, Verb.Retire,
        Verb.RetireTarget, Verb.Reclaim,
        Verb.Revert, Verb.DisposePatcher,
    ];

    /// <summary>One thread: what each operation gives and does, by itself.</summary>
    [Fact]
    public void Operations_one_after_another_do_what_the_model_says() => Sample(1, 12, s_all, s_allShapes, s_allBackends);

    [Fact]
    public void Links_and_switches_of_several_threads_are_in_some_order() => Sample(3, 4, s_links, [0, 1, 2], s_plainBackends);

    [Fact]
    public void Retired_blocks_and_targets_among_links_of_several_threads_are_in_some_order() =>
        Sample(3, 4, [.. s_links, Verb.Retire, Verb.RetireTarget, Verb.Reclaim, Verb.Emit], s_plainShapes, s_plainBackends);

    [Fact]
    public void Emits_among_switches_of_several_threads_are_in_some_order() =>
        Sample(3, 4, [Verb.Emit, Verb.Switch, Verb.SwitchSlot, Verb.Bind], [0, 1, 2, 4], s_plainBackends);

    [Fact]
    public void Sites_that_can_not_be_changed_live_among_binds_of_several_threads_are_in_some_order() =>
        Sample(3, 4, [Verb.Emit, Verb.Bind, Verb.Switch, Verb.Revert], [0, 3, 5], s_plainBackends);

    [Fact]
    public void Emits_that_a_function_does_not_suit_among_switches_of_several_threads_are_in_some_order() =>
        Sample(3, 4, [Verb.Emit, Verb.Switch, Verb.Retire, Verb.Reclaim], [0, 2], s_allBackends, vector: true);

    [Fact]
    public void A_patcher_disposed_of_among_operations_of_several_threads_is_in_some_order() =>
        Sample(3, 4, [.. s_links, Verb.DisposePatcher], s_plainShapes, s_plainBackends);

    [Fact]
    public void All_operations_of_several_threads_are_in_some_order() => Sample(3, 5, s_all, s_allShapes, s_allBackends, vector: true);

    private static Gen<T> Any<T>(T[] items) => Gen.Int[0, items.Length - 1].Select(i => items[i]);

    private static void Sample(
        int threads, int length, Verb[] verbs, int[] shapes, int[] backends, bool vector = false, [CallerMemberName] string name = "") =>
        Isolated.Run(typeof(LiveModelTests), () => Run(threads, length, verbs, shapes, backends, vector), name: name);

    private static void Run(int threads, int length, Verb[] verbs, int[] shapes, int[] backends, bool vector)
    {
        Gen<Op> op =
            from verb in Any(verbs)
            from block in Gen.Int[0, 2]
            from argument in verb switch
            {
                Verb.Emit => Any(shapes),
                Verb.Switch or Verb.SwitchSlot => Any(backends),
                _ => Gen.Int[0, 1],
            }
            select new Op(verb, verb == Verb.SwitchSlot ? block & 1 : block, argument);
        Gen<Op[]> before =
            from first in Any(shapes)
            from second in Any(shapes)
            from bound in Gen.Bool
            select (Op[])[new(Verb.Emit, 0, first), new(Verb.Emit, 0, second), .. (ReadOnlySpan<Op>)(bound ? [new(Verb.Switch)] : [])];
        Gen.Select(before, op.Array[1, length].Array[threads]).Sample(
            program =>
            {
                using var history = new LiveHistory(threads, vector);
                history.Check(program.Item1, program.Item2);
            },
            iter: 100,
            threads: 1,
            print: static p => $"{string.Join(' ', p.Item1)} | {string.Join(" | ", p.Item2.Select(static t => string.Join(' ', t)))}");
    }
}
