using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// What is asked of a site before it is written: every byte of it, where its body's first instruction ends, what reaches it.
/// </summary>
public sealed class SiteCheckTests
{
    private static readonly Shape[] s_shapes =
    [
        Shape.Atomic(), new(0, Budget: 8), new(0, Budget: 9), new(0, Budget: 15), Shape.Guarded(), new(0, Budget: 9, Start: 58),
        new(0, Budget: 15, Start: 52), new(0, Budget: 15, Start: 52, Forwarding: true), Shape.Fixed(), new(0, Budget: 16),
        new(0, Budget: 30),
    ];

    [Theory]
    [InlineData("switch", Mode.Live)]
    [InlineData("switch", Mode.Quiescent)]
    [InlineData("sites", Mode.Live)]
    [InlineData("link", Mode.Live)]
    [InlineData("link", Mode.Quiescent)]
    [InlineData("revert", Mode.Live)]
    [InlineData("revert", Mode.Quiescent)]
    [InlineData("unlink", Mode.Quiescent)]
    [InlineData("bind", Mode.Offline)]
    public unsafe void A_byte_of_a_site_that_nobody_put_there_is_refused_wherever_it_is(string what, object mode)
    {
        using var host = new LiveHost(writable: true);
        HostBackends all = host.Backends;
        VirtualAddress target = all.Function(12);
        foreach (Shape shape in s_shapes)
        {
            CodeBlock block = Probe.Emit(host, shape);
            LiveSite site = block[0];
            if (what != "bind")
            {
                Applied(host.SwitchSites([site], all.Outlined, Mode.Quiescent));
            }
            else
            {
                Applied(host.Switch(all.Called));
                block = Probe.Emit(host, shape);
                site = block[0];
            }

            if (what == "unlink")
            {
                Applied(host.Link(site, target, HostBackends.Narrow, Mode.Quiescent));
            }

            if ((Mode)mode == Mode.Live && (site.Class == SiteClass.QuiescentOnly))
            {
                continue;
            }

            byte* at = (byte*)site.Address.Value;
            for (int i = 0; i < shape.Budget; i++)
            {
                at[i] ^= 0x10;
                byte[] before = block.ToArray();
                Done done = Do();
                Assert.True(done.Code == DiagnosticCodes.UnexpectedLiveBytes, $"byte {i} of {shape}: {done}");
                Assert.Equal(before, block.ToArray());
                at[i] ^= 0x10;
            }

            Applied(Do());
            Applied(host.SwitchSites([site], all.Inlined, Mode.Quiescent));
            Applied(host.Retire(block));

            Done Do() => what switch
            {
                "switch" => host.Switch(all.Called, (Mode)mode),
                "sites" => host.SwitchSites([site], all.Called, (Mode)mode),
                "link" => host.Link(site, target, HostBackends.Narrow, (Mode)mode),
                "unlink" => host.Unlink(site, (Mode)mode),
                "revert" => host.Revert((Mode)mode),
                _ => host.Bind(block),
            };
        }
    }

    /// <summary>A guard has two bytes: who is behind a first instruction of one would come back into its middle.</summary>
    [Theory]
    [InlineData(1, false)]
    [InlineData(2, true)]
    [InlineData(3, true)]
    public void A_body_is_drained_only_where_its_first_instruction_is_as_long_as_a_guard(int first, bool drains)
    {
        using var host = new LiveHost();
        Backend several = Backend.Create("several", host.Layout, b => b.Inline("t.a", a =>
        {
            switch (first)
            {
                case 1:
                    a.cwde();
                    break;
                case 2:
                    a.xor(eax, eax);
                    break;
                default:
                    a.xor(rax, rax);
                    break;
            }

            a.mov(eax, 11);
            a.xor(ecx, ecx);
        }).Nop("t.b"));
        CodeBlock block = Probe.Emit(host, new Shape(0, Budget: 15, Forwarding: true));
        using Executor executor = host.Arena.RegisterExecutor();
        Applied(host.Switch(several, Mode.QuiescentInPlace));
        Instruction instruction = Decoder.Create(64, block[0].ToArray()).Decode();
        Assert.Equal(first, instruction.Length); // it is in place
        byte[] before = block.ToArray();
        Done done = host.Switch(host.Backends.Called);
        Assert.True(done.Applied == drains, done.Text);
        Assert.Equal(drains ? null : DiagnosticCodes.NeedsQuiescence, done.Code);
        if (!drains)
        {
            Assert.Equal(before, block.ToArray());
            Applied(host.Switch(host.Backends.Called, Mode.Quiescent));
        }

        Probe.Expect(block, 3);
    }

    [Fact]
    public void An_arena_reaches_what_both_its_ends_reach()
    {
        using CodeArena arena = CodeArena.Reserve(0x20_0000_0000, 4 << 20);
        const long Edge = 1L << 31;
        const long Margin = 64; // of the first and the last instruction
        long size = arena.Size;
        (long Offset, bool Reached)[] cases =
        [
            (0, true), (size, true), (Edge - Margin, true), (Edge + Margin, false), (Edge + (size / 2), false),
            (Edge + size - Margin, false),
            (Edge + size + Margin, false), (size - Edge + Margin, true), (size - Edge - Margin, false), (-Edge + Margin, false),
            (-Edge + (size / 2), false), (-Edge - Margin, false), (1L << 32, false), (-(1L << 32), false), ((1L << 32) + (size / 2), false),
        ];
        Assert.All(cases, c => Assert.Equal((c.Offset, c.Reached), (c.Offset, arena.Reaches(arena.Address + c.Offset))));
    }

    /// <summary>Point 9: a new block is bound as far as it can be switched again.</summary>
    [Fact]
    public void Blocks_that_were_bound_can_be_switched_live()
    {
        using var host = new LiveHost();
        HostBackends all = host.Backends;
        Applied(host.Switch(all.Inlined));
        Shape[] shapes = [Shape.Atomic(), Shape.Fixed(), Shape.Guarded(1), Shape.Fixed(1), new(0, Budget: 30)];
        CodeBlock block = Probe.Emit(host, shapes);
        Applied(host.Bind(block));
        Probe.Expect(block, 1, 1, 2, 2, 1);
        Applied(host.Switch(all.Outlined));
        Probe.Expect(block, 5, 5, 6, 6, 5);
        Applied(host.SwitchSlot(0, all.Called));
        Probe.Expect(block, 3, 3, 6, 6, 3);
        Applied(host.Revert());
        Probe.Expect(block, 3, 3, 6, 6, 3);
    }

    /// <summary>Point 9: default placements, with a barrier that only managed code can run.</summary>
    [Fact]
    public void Default_placements_can_be_switched_with_a_weak_barrier_or_the_message_names_it()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak, HasNativeBarrier = false };
        using var host = new LiveHost(platform);
        HostBackends all = host.Backends;
        var a = new Assembler(64);
        var sites = new SiteEmitter(host.Layout);
        a.sub(rsp, 8);
        for (int i = 0; i < 64; i++)
        {
            sites.Emit(a, host.Layout[0]);
            a.nop();
        }

        a.add(rsp, 8);
        a.ret();
        CodeBlock block = host.Arena.Emit(a, sites);
        Applied(host.Switch(all.Inlined));
        Done done = host.Switch(all.Called);
        if (!done.Applied)
        {
            Assert.Contains("barrier", done.Text, StringComparison.OrdinalIgnoreCase);
            Assert.Contains(
                "barrier", $"{Assert.Throws<PatchException>(() => host.SwitchOrThrow(all.Called)).Diagnostic}",
                StringComparison.OrdinalIgnoreCase);
        }
        else
        {
            Assert.Equal(3, Run(block));
        }

        // A block bound at once is no worse off than one that was not.
        CodeBlock bound = host.Arena.Emit(a, Again(host, a));
        Applied(host.Bind(bound));
        Assert.Equal(done.Applied, host.Switch(all.Outlined).Applied);
    }

    private static SiteEmitter Again(LiveHost host, Assembler a)
    {
        a.Reset();
        var sites = new SiteEmitter(host.Layout);
        a.sub(rsp, 8);
        sites.Emit(a, host.Layout[0]);
        a.add(rsp, 8);
        a.ret();
        return sites;
    }

    private static unsafe long Run(CodeBlock block) => ((delegate* unmanaged<long>)block.Address.Value)();

    private static void Applied(Done done) => Assert.True(done.Applied, done.Text);
}
