using PvPatch.Live;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Patching;
using RiscV.Translator;

namespace PvPatch.Samples.Tests;

/// <summary>Switching while the guest runs changes how it runs, not what it does; and leaves no trace in the code.</summary>
public sealed class SwitchingTests
{
    private const int WantedSwitches = 60;
    private static readonly GuestImage s_program = BuiltInProgram.Create(limit: 40_000, rounds: 30);

    [Fact]
    public void switched_every_millisecond_a_program_gives_the_same_result()
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        int switches = 0;
        while (switches < WantedSwitches)
        {
            using var guest = new Guest(s_program);
            using var engine = new TranslatorEngine(guest, new AccessCounter());
            using var switcher = new Switcher(engine, TimeSpan.FromMilliseconds(1));
            RunRecord found = RunRecord.Of(guest, engine);
            switcher.Stop();
            Assert.Null(switcher.Failure);
            Assert.Equal(expected, found);
            switches += switcher.Switches;
        }
    }

    [Fact]
    public void regions_translated_while_another_thread_switches_are_right()
    {
        Random seeds = TestSeed.NewRandom();
        for (int i = 0; i < 15; i++)
        {
            int seed = seeds.Next();
            GuestImage image = RandomProgram.Create(seed, rounds: 200);
            RunRecord expected = Engines.Run(Engines.Interpreter, image);
            using var guest = new Guest(image);
            using var engine = new TranslatorEngine(guest, new AccessCounter());
            using var switcher = new Switcher(engine, TimeSpan.Zero);
            RunRecord found = RunRecord.Of(guest, engine);
            switcher.Stop();
            Assert.Null(switcher.Failure);
            Assert.True(expected == found, $"seed {seed}:\n{expected}\n{found}");
        }
    }

    [Fact]
    public void every_site_can_be_switched_live_by_one_store()
    {
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        guest.Run(engine);
        LiveSite[] sites = Sites(engine);
        Assert.NotEmpty(sites);
        Assert.All(sites, static s => Assert.Equal(SiteClass.Atomic8, s.Class));
        Assert.All(sites, static s => Assert.Equal(GuestOps.Budget, s.Budget));
        ApplyResult result = engine.Switch(engine.Backends.Checked);
        Assert.Equal(0, result.KeptIndirect);
        Assert.Equal(sites.Count(static s => s.Slot!.Table == "mem"), result.Written);
        Assert.Equal(1, result.Barriers);
    }

    [Fact]
    public void fast_has_no_calls_for_memory_timer_and_tracing()
    {
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        guest.Run(engine);
        Assert.All(Sites(engine).Where(static s => s.Slot!.Table != "trap"), static s => Assert.Equal(LiveForm.OneInstruction, s.Form));
    }

    [Fact]
    public void back_on_fast_every_byte_is_what_it_was()
    {
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        guest.Run(engine);
        byte[][] before = Code(engine);
        foreach (PvPatch.Mechanisms.Backend backend in engine.Backends.All.Skip(1))
        {
            engine.Switch(backend);
            Assert.NotEqual(before, Code(engine));
            engine.Switch(engine.Backends.Fast);
            Assert.Equal(before, Code(engine));
        }
    }

    [Fact]
    public void reverted_every_site_is_the_indirect_call_it_was_emitted_as_and_the_guest_still_runs()
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        engine.Switch(engine.Backends.Indirect);
        Assert.Equal(expected, RunRecord.Of(guest, engine));
        LiveSite[] memory = [.. Sites(engine).Where(static s => s.Slot!.Table == "mem")];
        byte[][] emitted = [.. memory.Select(static s => s.ToArray())];
        Assert.All(emitted, static b => Assert.Equal([0xff, 0x15], b[..2])); // call [rip+slot]
        engine.Switch(engine.Backends.Profiled);
        engine.Patcher.Revert();
        Assert.Equal(emitted, memory.Select(static s => s.ToArray()));
        Assert.All(Sites(engine), static s => Assert.Equal(LiveForm.Original, s.Form));
    }

    private static LiveSite[] Sites(TranslatorEngine engine) =>
        [.. engine.Arena.Blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];

    private static byte[][] Code(TranslatorEngine engine) =>
        [.. engine.Arena.Blocks.Where(static b => b.SiteCount > 0).Select(static b => b.ToArray())];
}
