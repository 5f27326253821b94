using System.Runtime.CompilerServices;
using CsCheck;
using PvPatch.Tests.Live.Behaviour;

namespace PvPatch.Tests.Live.Model;

/// <summary>
/// Operations on keys, branches, calls, entries, constants and the backend (variants, arguments, operands) by several threads against the
/// sequential model, as <see cref="LiveModelTests"/> does for
/// switches and links.
/// </summary>
public sealed class SettingModelTests
{
    private static readonly SettingVerb[] s_changes =
    [
        SettingVerb.Enable, SettingVerb.Disable, SettingVerb.Set, SettingVerb.Target, SettingVerb.SetConstant, SettingVerb.Use,
        SettingVerb.Replace, SettingVerb.Mixed,
    ];

    private static readonly SettingVerb[] s_all =
    [
        .. s_changes, SettingVerb.Enable, SettingVerb.Mixed, SettingVerb.Emit, SettingVerb.Emit, SettingVerb.Retire,
        SettingVerb.RetireTarget, SettingVerb.Reclaim,
    ];

    /// <summary>One thread: what each operation gives and does, by itself.</summary>
    [Fact]
    public void Operations_one_after_another_do_what_the_model_says() => Sample(1, 15, [.. s_all, SettingVerb.DisposePatcher]);

    [Fact]
    public void Changes_of_several_threads_are_in_some_order() => Sample(3, 4, s_changes);

    [Fact]
    public void Emits_and_retired_blocks_among_changes_of_several_threads_are_in_some_order() => Sample(3, 5, s_all);

    [Fact]
    public void A_patcher_disposed_of_among_changes_of_several_threads_is_in_some_order() =>
        Sample(3, 5, [.. s_all, SettingVerb.DisposePatcher]);

    /// <summary>The model can fail: an order in which a key is disabled before it was enabled is none.</summary>
    [Fact]
    public void The_model_refuses_what_can_not_be()
    {
        Assert.False(new SettingModel().Step(new SettingEvent(new(SettingVerb.Disable), "i.0", 0, 1, SettingModel.Applied)));
        Assert.True(new SettingModel().Step(new SettingEvent(new(SettingVerb.Disable), "i.0", 0, 1, DiagnosticCodes.KeyCount)));
        Assert.False(new SettingModel().Step(new SettingEvent(new(SettingVerb.Observe), "i.0", 0, 1, "1/0 -1 2 2 0: ")));
        Assert.True(new SettingModel().Step(new SettingEvent(new(SettingVerb.Observe), "i.0", 0, 1, "0/0 -1 2 2 0: ")));
    }

    private static void Sample(int threads, int length, SettingVerb[] verbs, [CallerMemberName] string name = "") =>
        Isolated.Run(typeof(SettingModelTests), () => Run(threads, length, verbs), name: name);

    private static void Run(int threads, int length, SettingVerb[] verbs)
    {
        Gen<SettingOp> op =
            from verb in Gen.Int[0, verbs.Length - 1]
            from argument in Gen.Int[0, 59] // of every pair of way, target, backend and constant some
            select new SettingOp(verbs[verb], argument);
        op.Array[1, length].Array[threads].Sample(
            programs =>
            {
                using var history = new SettingHistory(threads);
                history.Check(programs);
            },
            iter: 200,
            threads: 1,
            print: static p => string.Join(" | ", p.Select(static t => string.Join(' ', t))));
    }
}
