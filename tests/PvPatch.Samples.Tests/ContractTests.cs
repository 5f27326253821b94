using PvPatch.Live;
using PvPatch.Mechanisms;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Isa;
using RiscV.Patching;
using RiscV.Translator;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Samples.Tests;

/// <summary>What the README says of a backend that does not keep to what a site allows.</summary>
public sealed class ContractTests
{
    private static readonly GuestImage s_program = BuiltInProgram.Create(limit: 2000, rounds: 1);

    [Fact]
    public void a_timer_that_destroys_a_register_is_put_behind_a_thunk_that_saves_it()
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        engine.Switch(engine.Backends.Fast.Derive("greedy", static b => b.Inline("timer.tick", static a =>
        {
            a.xor(eax, eax);
            FastBackend.Tick(a);
        })));
        Assert.Equal(expected, RunRecord.Of(guest, engine));
        Assert.All(
            engine.Arena.Blocks.Where(static b => b.SiteCount > 0)
                .SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i])).Where(static s => s.Slot == GuestOps.Tick),
            static s => Assert.Equal(LiveForm.Original, s.Form));
    }

    [Fact]
    public void a_load_that_destroys_a_guest_register_is_put_behind_a_thunk_that_saves_it()
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        engine.Switch(engine.Backends.Fast.Derive("greedy", static b =>
        {
            foreach (Op op in GuestOps.Accesses)
            {
                b.Inline(GuestOps.SlotName(op), a =>
                {
                    FastBackend.Access(a, op);
                    a.xor(esi, esi);
                    a.xor(r8d, r8d);
                    a.xor(r9d, r9d);
                });
            }
        }));
        Assert.Equal(expected, RunRecord.Of(guest, engine));
    }

    [Fact]
    public void a_timer_that_returns_by_itself_is_refused_and_nothing_changes()
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest);
        Backend bad = engine.Backends.Fast.Derive("returning", static b => b.Inline("timer.tick", static a =>
        {
            FastBackend.Tick(a);
            a.ret(); // in a site it would return from whatever called the region
        }));
        guest.Run(engine, 50); // some blocks are there
        byte[][] before = [.. engine.Arena.Blocks.Select(static b => b.ToArray())];
        Assert.Throws<PatchException>(() => engine.Switch(bad));
        Assert.Equal(before, engine.Arena.Blocks.Select(static b => b.ToArray()));
        Assert.Equal(StopReason.Exited, guest.Run(engine));
        Assert.Equal(expected.Output, guest.Output);
        Assert.Equal(expected.Instructions, guest.Instructions);
    }
}
