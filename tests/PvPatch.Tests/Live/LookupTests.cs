using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>From an address to block and site: for those who see an instruction pointer or a return address.</summary>
public sealed unsafe class LookupTests
{
    private static CodeArena? s_arena;
    private static LiveSite s_seen;
    private static bool s_found;

    [Fact]
    public void Every_byte_of_the_arena_belongs_to_the_site_and_block_that_cover_it()
    {
        using var code = new LiveCode();
        var random = TestSeed.NewRandom();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 60).Select(n => code.EmitFunction(
            [.. Enumerable.Range(0, n == 5 ? 500 : random.Next(0, 40)).Select(i => new SiteWish(i % 3, random.Next(6, 30)))]))];
        Assert.Contains(blocks, static b => b.Length > 8192); // over three pages
        for (VirtualAddress address = code.Arena.Address; address < blocks[^1].Address + 4096; address += 1)
        {
            CodeBlock? expected = Array.Find(blocks, b => b.Contains(address))
                ?? code.Arena.Blocks.FirstOrDefault(b => b.Contains(address));
            Assert.Equal(expected is not null, code.Arena.TryFindBlock(address, out CodeBlock? block));
            Assert.Same(expected, block);
            int index = expected is null ? -1 : Enumerable.Range(0, expected.SiteCount)
                .FirstOrDefault(i => address >= expected[i].Address && address < expected[i].End, -1);
            Assert.Equal(index >= 0, code.Arena.TryFindSite(address, out LiveSite site));
            Assert.Equal(index < 0 ? default : expected![index], site);
        }
    }

    [Fact]
    public void The_end_of_a_site_is_the_return_address_of_its_call_and_not_the_next_sites_first_byte()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0), new SiteWish(1), new SiteWish(2, 9));
        Assert.Equal(block[0].End, block[1].Address); // side by side
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(block[i].Address + block[i].Budget, block[i].End);
            Assert.True(code.Arena.TryFindCaller(block[i].End, out LiveSite caller));
            Assert.Equal(block[i], caller);
        }

        Assert.True(code.Arena.TryFindSite(block[0].End, out LiveSite covering));
        Assert.Equal(block[1], covering);
        Assert.False(code.Arena.TryFindCaller(block.Address, out _));
    }

    [Theory]
    [InlineData(6, false)] // direct
    [InlineData(6, true)] // linked
    [InlineData(40, false)]
    public void A_host_function_learns_its_site_from_its_return_address(int budget, bool linked)
    {
        using var code = new LiveCode();
        VirtualAddress helper = EmitReporter(code);
        CodeBlock block = code.EmitFunction(
            new SiteWish(0, budget), new SiteWish(1, 7), new SiteWish(0, budget, Clobbers: RegisterSet.Rax));
        using LivePatcher patcher = code.Patcher(code.Direct);
        Backend reporting = code.Direct.Derive("reporting", b => b.Call("t.second", helper, "helper", RegisterSet.Rax));
        if (linked)
        {
            patcher.Link([new SiteLink(block[1], helper, RegisterSet.Rax)]);
        }
        else
        {
            patcher.Switch(reporting, LiveCode.Quiescent);
        }

        CheckReports(code.Arena, block, block[1]);
        patcher.Switch(reporting, LiveCode.Quiescent);
        patcher.Revert(LiveCode.Quiescent);
        CheckReports(code.Arena, block, block[1]); // through the slot
    }

    [Fact]
    public void A_call_in_an_island_or_in_a_body_in_place_is_its_sites()
    {
        using var code = new LiveCode();
        VirtualAddress helper = EmitReporter(code);
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15), new SiteWish(1, 15, Clobbers: RegisterSet.All), new SiteWish(2, 15));
        Backend backend = code.Nops.Derive("calls", b => b.Inline("t.second", a =>
        {
            a.call(helper.Value);
            a.lea(rax, __[rax + 1]);
        }));
        using LivePatcher patcher = code.Patcher(backend);
        Assert.Equal(LiveForm.Island, block[1].Form);
        CheckReports(code.Arena, block, block[1]);
        patcher.Switch(backend, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal(LiveForm.InPlace, block[1].Form);
        CheckReports(code.Arena, block, block[1]);
    }

    [Fact]
    public void Instructions_of_islands_are_their_sites()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 200).Select(_ => code.EmitFunction(new SiteWish(0), new SiteWish(1)))];
        using LivePatcher patcher = code.Patcher(code.Outlined);
        foreach (CodeBlock block in blocks)
        {
            for (int i = 0; i < 2; i++)
            {
                VirtualAddress island = block[i].End + BitConverter.ToInt32(block[i].ToArray(), 2);
                for (int at = 0; at < 11; at++) // lea, lea, jmp
                {
                    Assert.True(code.Arena.TryFindSite(island + at, out LiveSite site));
                    Assert.Equal(block[i], site);
                }
            }
        }
    }

    [Fact]
    public void Forwarding_islands_are_their_sites()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction([.. Enumerable.Range(0, 6).Select(i => new SiteWish(i % 3, 6 + i, Forwarding: i != 2))]);
        for (int i = 0; i < 6; i++)
        {
            Assert.Equal(i != 2, block[i].HasForwarding);
            if (i != 2)
            {
                VirtualAddress island = block[i].Address + 2 + block[i].Record.Forward;
                Assert.True(code.Arena.TryFindSite(island, out LiveSite site));
                Assert.Equal(block[i], site);
                Assert.True(code.Arena.TryFindCaller(island + 6, out site)); // ff 15 rel32, and its return address
                Assert.Equal(block[i], site);
            }
        }
    }

    [Fact]
    public void What_belongs_to_no_site_is_not_found()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        Assert.False(code.Arena.TryFindSite(code.Two, out _)); // a block without sites
        Assert.True(code.Arena.TryFindBlock(code.Two, out CodeBlock? helper));
        Assert.Equal(0, helper.SiteCount);
        foreach (VirtualAddress address in (VirtualAddress[])[0, ulong.MaxValue, code.Arena.Address + -1,
            code.Arena.Address + code.Arena.Size, code.Arena.SlotsOf(code.Layout).Address, block.Address])
        {
            Assert.False(code.Arena.TryFindSite(address, out LiveSite site));
            Assert.Equal(default, site);
        }

        CodeArena arena = code.Arena;
        VirtualAddress inside = block[0].Address;
        code.Dispose();
        Assert.False(arena.TryFindSite(inside, out _)); // somebody else's memory by now
    }

    [Fact]
    public void Sites_of_a_retired_block_are_found_until_their_bytes_are_reused()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Outlined);
        VirtualAddress island = block[0].End + BitConverter.ToInt32(block[0].ToArray(), 2);
        executor.Enter();
        code.Arena.Retire(block);
        foreach (VirtualAddress address in (VirtualAddress[])[block[0].Address, island])
        {
            Assert.True(code.Arena.TryFindSite(address, out LiveSite site));
            Assert.Equal((block[0], LiveSiteState.Retired), (site, site.State));
        }

        Assert.DoesNotContain(block, code.Arena.Blocks);
        executor.Leave();
        code.Arena.Reclaim();
        Assert.False(code.Arena.TryFindSite(block[0].Address, out _));
        Assert.False(code.Arena.TryFindSite(island, out _));
        Assert.False(code.Arena.TryFindBlock(block.Address, out _));

        using CodeReservation room = code.Arena.Allocate(block.Length);
        Assert.Equal(block.Address, room.Address); // reused
        room.Span.Fill(0x90);
        CodeBlock next = room.Commit(block.Length);
        Assert.True(code.Arena.TryFindBlock(block.Address, out CodeBlock? there));
        Assert.Same(next, there);
        Assert.False(code.Arena.TryFindSite(block[0].Address, out _));
    }

    [Fact]
    public void Looking_up_allocates_nothing()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, Forwarding: true), new SiteWish(1));
        using LivePatcher patcher = code.Patcher(code.Outlined);
        VirtualAddress island = block[1].End + BitConverter.ToInt32(block[1].ToArray(), 2);
        VirtualAddress forwarding = block[0].Address + 2 + block[0].Record.Forward;
        long found = LookUp(code.Arena, block, island, forwarding);
        long least = long.MaxValue;
        for (int i = 0; i < 5; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            long again = LookUp(code.Arena, block, island, forwarding);

            // The least of a few: now and then the runtime has something of its own to do on this thread.
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.Equal(found, again);
        }

        Assert.Equal(0, least);
    }

    [Fact]
    public void Looking_up_while_others_emit_retire_and_switch_gives_the_right_site_or_none()
    {
        using var code = new LiveCode(size: 4 << 20);
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock stays = code.EmitFunction([.. Enumerable.Range(0, 20).Select(i => new SiteWish(i % 3, 7 + (i % 5)))]);
        using var stop = new CancellationTokenSource();
        string? wrong = null;
        long hits = 0;
        Random random = TestSeed.NewRandom();
        var reader = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                LiveSite expected = stays[random.Next(20)];
                if (!code.Arena.TryFindSite(expected.Address + random.Next(7), out LiveSite found) || found != expected)
                {
                    wrong = $"{found} for {expected}";
                }

                // Anywhere: what is found covers the address or has an island there.
                VirtualAddress address = code.Arena.Address + random.Next(1 << 16);
                if (code.Arena.TryFindSite(address, out found))
                {
                    hits++;
                }
            }
        });
        reader.Start();
        for (int i = 0; i < 300; i++)
        {
            CodeBlock[] some = [.. Enumerable.Range(0, 20).Select(n => code.EmitFunction(new SiteWish(n % 3), new SiteWish(0)))];
            patcher.Switch(i % 2 == 0 ? code.Outlined : code.Inlined);
            code.Arena.Retire(some);
        }

        stop.Cancel();
        reader.Join();
        Assert.Null(wrong);
        Assert.True(hits > 0);
    }

    private static long LookUp(CodeArena arena, CodeBlock block, VirtualAddress island, VirtualAddress forwarding)
    {
        long found = 0;
        for (int i = 0; i < 100; i++)
        {
            found += arena.TryFindSite(block[i % 2].Address, out LiveSite site) ? site.Index + 1 : 0;
            found += arena.TryFindCaller(block[i % 2].End, out site) ? site.Index + 1 : 0;
            found += arena.TryFindSite(island, out site) ? site.Index + 1 : 0;
            found += arena.TryFindSite(forwarding, out site) ? site.Index + 1 : 0;
            found += arena.TryFindBlock(block.Address + i, out _) ? 1 : 0;
            found += arena.TryFindSite((ulong)i, out _) ? 1000 : 0;
        }

        return found;
    }

    private static void CheckReports(CodeArena arena, CodeBlock block, LiveSite expected)
    {
        (s_arena, s_seen, s_found) = (arena, default, false);
        _ = LiveCode.Call(block);
        Assert.True(s_found);
        Assert.Equal(expected, s_seen);
    }

    /// <summary>A function that tells C# its return address and keeps every register but rax.</summary>
    private static VirtualAddress EmitReporter(LiveCode code)
    {
        AssemblerRegister64[] kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11, rbp];
        var a = new Assembler(64);
        a.mov(rax, __qword_ptr[rsp]);
        foreach (AssemblerRegister64 register in kept)
        {
            a.push(register);
        }

        a.mov(rbp, rsp);
        a.and(rsp, -16);
        a.mov(rdi, rax);
        a.mov(rax, ManagedTarget.Of((delegate* unmanaged<ulong, void>)&Report).Value);
        a.call(rax);
        a.mov(rsp, rbp);
        foreach (AssemblerRegister64 register in kept.Reverse())
        {
            a.pop(register);
        }

        a.ret();
        return code.Arena.Emit(a).Address;
    }

    [UnmanagedCallersOnly]
    private static void Report(ulong returnAddress) => s_found = s_arena!.TryFindCaller(returnAddress, out s_seen);
}
