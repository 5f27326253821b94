using PvPatch.Live;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>What is retired comes back, all of it, and nothing that is still led to goes.</summary>
public sealed class ReuseTests
{
    /// <summary>Point 5: as many rounds as one likes fit where one fits.</summary>
    [Theory]
    [InlineData(200, 6)]
    [InlineData(1, 200)]
    [InlineData(40, 40)]
    public void Blocks_with_islands_that_come_and_go_take_no_more_room_than_the_most_that_were_there(int count, int sites)
    {
        using var host = new LiveHost(size: 8 << 20);
        using Executor executor = host.Arena.RegisterExecutor();
        Applied(host.Switch(host.Backends.Outlined));
        Shape[] shapes = new Shape[sites];
        for (int i = 0; i < sites; i++)
        {
            shapes[i] = Shape.Atomic(i % 2);
        }

        long before = host.Arena.Used;
        long most = 0;
        for (int round = 0; round < 8; round++)
        {
            CodeBlock[] blocks = [.. Enumerable.Range(0, count).Select(_ => Probe.Emit(host, shapes))];
            Applied(host.Bind(blocks));
            Applied(host.Bind(blocks));
            long used = host.Arena.Used;
            most = round == 0 ? used : most;
            Assert.True(used <= most + 4096, $"round {round}: {used - most} bytes more than in the first");
            Applied(host.Retire(blocks));
            host.Arena.Reclaim();
        }

        // A page of islands may be kept; each round's may not.
        Assert.True(host.Arena.Used <= before + 4096, $"{host.Arena.Used - before} bytes are left of what was retired");
    }

    [Fact]
    public void Islands_that_stay_are_whole_though_others_go_between_them()
    {
        var random = new Random();
        using var host = new LiveHost(size: 8 << 20);
        using Executor executor = host.Arena.RegisterExecutor();
        HostBackends all = host.Backends;
        var blocks = new List<CodeBlock>();
        Applied(host.Switch(all.Outlined));
        for (int round = 0; round < 60; round++)
        {
            for (int i = 0; i < 12; i++)
            {
                CodeBlock block = Probe.Emit(host, Shape.Atomic(), Shape.Guarded(1), Shape.Atomic(1));
                Applied(host.Bind(block));
                blocks.Add(block);
            }

            while (blocks.Count > 20)
            {
                int gone = random.Next(blocks.Count);
                Applied(host.Retire(blocks[gone]));
                blocks.RemoveAt(gone);
            }

            host.Arena.Reclaim();
            Assert.All(blocks, static b => Probe.Expect(b, 5, 6, 6));
        }
    }

    /// <summary>What was freed is nobody's: an address in it names no site.</summary>
    [Fact]
    public void Freed_islands_are_found_no_more_and_reused_ones_are_their_new_sites()
    {
        using var host = new LiveHost();
        using Executor executor = host.Arena.RegisterExecutor();
        HostBackends all = host.Backends;
        Applied(host.Switch(all.Outlined));
        CodeBlock gone = Probe.Emit(host, Shape.Atomic(), Shape.Atomic(1));
        Applied(host.Bind(gone));
        VirtualAddress[] islands = [IslandOf(gone[0]), IslandOf(gone[1])];
        for (int i = 0; i < 2; i++)
        {
            Assert.True(host.Arena.TryFindSite(islands[i], out LiveSite site));
            Assert.Equal(gone[i], site);
            Assert.True(host.Arena.TryFindSite(islands[i] + 5, out site));
            Assert.Equal(gone[i], site);
        }

        Applied(host.Retire(gone));
        host.Arena.Reclaim();
        foreach (VirtualAddress island in islands)
        {
            for (int at = 0; at < 16; at++)
            {
                Assert.False(host.Arena.TryFindSite(island + at, out _), $"byte {at}");
            }
        }

        // A block where the old one was, whose sites have no islands: the old ones are not theirs.
        CodeBlock same = Probe.Emit(host, Shape.Atomic(), Shape.Atomic(1));
        Assert.Equal(gone.Address, same.Address);
        Assert.All(islands, i => Assert.False(host.Arena.TryFindSite(i, out _)));
        CodeBlock next = Probe.Emit(host, Shape.Atomic(1));
        Applied(host.Bind(next));
        Assert.Contains(IslandOf(next[0]), islands);
        Assert.True(host.Arena.TryFindSite(IslandOf(next[0]), out LiveSite found));
        Assert.Equal(next[0], found);
        Probe.Expect(next, 6);
    }

    /// <summary>Point 10: a block is kept as long as a site of any arena leads into it.</summary>
    [Fact]
    public void A_block_that_a_site_of_another_arena_is_linked_to_is_not_retired()
    {
        using var host = new LiveHost();
        using var other = new LiveHost(layout: host.Layout);
        using Executor executor = other.Arena.RegisterExecutor();
        CodeBlock target = other.Backends.FunctionBlock(9);
        CodeBlock block = Probe.Emit(host, Shape.Atomic());
        Applied(host.Switch(host.Backends.Inlined));
        Done linked = host.Link(block[0], target.Address, HostBackends.Narrow);
        if (!linked.Applied)
        {
            return; // refused before anything leads there
        }

        Probe.Expect(block, 9);
        Assert.Equal(DiagnosticCodes.BlockLinked, other.Retire(target).Code);
        other.Arena.Reclaim();
        Probe.Expect(block, 9);
        Applied(host.Unlink(block[0]));
        Applied(other.Retire(target));
        Probe.Expect(block, 1);
    }

    [Fact]
    public void A_block_that_a_retired_site_of_another_arena_was_linked_to_can_go()
    {
        using var host = new LiveHost();
        using var other = new LiveHost(layout: host.Layout);
        using Executor executor = host.Arena.RegisterExecutor();
        CodeBlock target = other.Backends.FunctionBlock(9);
        CodeBlock block = Probe.Emit(host, Shape.Atomic());
        Applied(host.Switch(host.Backends.Inlined));
        if (host.Link(block[0], target.Address, HostBackends.Narrow).Applied)
        {
            Applied(host.Retire(block));
            host.Arena.Reclaim();
            Applied(other.Retire(target));
        }
    }

    private static VirtualAddress IslandOf(LiveSite site)
    {
        var decoder = Iced.Intel.Decoder.Create(64, site.ToArray(), site.Address.Value);
        Iced.Intel.Instruction jump = decoder.Decode();
        Assert.True(jump.IsJmpNear);
        return jump.NearBranchTarget;
    }

    private static void Applied(Done done) => Assert.True(done.Applied, done.Text);
}
