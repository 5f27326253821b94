using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>What an arena takes comes back, and what is asked of it after its end is refused.</summary>
public sealed unsafe class ArenaLifetimeTests
{
    [Fact]
    public void Islands_of_retired_blocks_are_used_again()
    {
        using var code = new LiveCode(size: 4 << 20);
        using LivePatcher patcher = code.Patcher(code.Outlined);
        using Executor executor = code.Arena.RegisterExecutor();
        long used = 0;
        for (int round = 0; round < 8; round++)
        {
            CodeBlock[] blocks = [
                .. Enumerable.Range(0, 200).Select(_ => code.EmitFunction(new(0), new(1), new(2), new(0), new(1), new(2)))];
            patcher.Bind(blocks);
            Assert.Equal(18, LiveCode.Call(blocks[100]));
            used = Math.Max(used, round == 0 ? code.Arena.Used : 0);
            Assert.InRange(code.Arena.Used, 0, used + 4096);
            code.Arena.Retire(blocks);
        }

        Assert.Equal(0, code.Arena.Islands.Count);
    }

    [Fact]
    public void Islands_of_blocks_retired_here_and_there_are_used_again()
    {
        int seed = Environment.TickCount;
        var random = new Random(seed);
        using var code = new LiveCode(size: 8 << 20);
        using LivePatcher patcher = code.Patcher(code.Outlined);
        using Executor executor = code.Arena.RegisterExecutor();
        var blocks = new List<CodeBlock>();
        long highest = 0;
        for (int round = 0; round < 60; round++)
        {
            CodeBlock[] added = [.. Enumerable.Range(0, 50).Select(_ => code.EmitFunction(new(0), new(1), new(2)))];
            patcher.Bind(added);
            blocks.AddRange(added);
            CodeBlock[] gone = blocks.Count < 400 ? [] : [.. blocks.OrderBy(_ => random.Next()).Take(50)];
            code.Arena.Retire(gone);
            blocks.RemoveAll(b => b.IsRetired);
            highest = round == 20 ? code.Arena.Used : highest;
            Assert.True(round <= 20 || code.Arena.Used <= highest + (16 << 10),
                $"seed {seed}, round {round}: {code.Arena.Used} bytes, {highest} before");
        }

        Assert.All(blocks, static b => Assert.Equal(9, LiveCode.Call(b)));
    }

    [Fact]
    public void Pieces_never_overlap_and_their_pages_come_back()
    {
        int seed = Environment.TickCount;
        var random = new Random(seed);
        using var code = new LiveCode(size: 4 << 20);
        var pieces = new StubAllocator(code.Arena.Memory);
        long before = code.Arena.Used;
        var taken = new List<(VirtualAddress Address, int Length)>();
        for (int step = 0; step < 4000; step++)
        {
            if (random.Next(5) < (step / 1000 % 2 == 0 ? 4 : 1))
            {
                int length = random.Next(1, random.Next(1, 1025));
                Assert.True(pieces.TryTake(length, out VirtualAddress address, out _));
                Assert.Equal(0UL, address.Value % StubAllocator.Alignment);
                Assert.True(
                    taken.TrueForAll(t => address >= t.Address + t.Length || t.Address >= address + length), $"seed {seed}, step {step}");
                taken.Add((address, length));
            }
            else if (taken.Count > 0)
            {
                int index = random.Next(taken.Count);
                pieces.Give(taken[index].Address, taken[index].Length);
                taken.RemoveAt(index);
            }

            // Best fit wastes little: half of what is taken at most, and a few pages.
            long pages = (taken.Sum(static t => t.Length + 15L) * 2 / 4096) + 4;
            Assert.True(step % 1000 > 900 || pieces.PageCount <= pages + 200, $"seed {seed}, step {step}: {pieces.PageCount} pages");
        }

        taken.ForEach(t => pieces.Give(t.Address, t.Length));
        Assert.Equal(0, pieces.PageCount);
        Assert.Equal(before, code.Arena.Used);
    }

    [Fact]
    public void A_full_page_of_pieces_is_filled_to_its_last_unit_and_no_further()
    {
        using var code = new LiveCode();
        var pieces = new StubAllocator(code.Arena.Memory);
        var taken = new List<VirtualAddress>();
        for (int i = 0; i < 255; i++)
        {
            Assert.True(pieces.TryTake(16, out VirtualAddress address, out _));
            taken.Add(address);
        }

        Assert.Equal(1, pieces.PageCount);
        Assert.Equal(4096 - 32, taken.Max() - taken.Min());
        Assert.True(pieces.TryTake(1, out _, out _));
        Assert.Equal(2, pieces.PageCount);

        // Two units that are free side by side serve a piece of two, and no other does.
        pieces.Give(taken[7], 16);
        pieces.Give(taken[9], 16);
        pieces.Give(taken[8], 16);
        Assert.True(pieces.TryTake(33, out VirtualAddress three, out _));
        Assert.Equal(taken[7], three);
    }

    [Fact]
    public void A_piece_is_its_owners_from_its_first_byte_to_its_last_unit_until_it_is_given_back()
    {
        using var code = new LiveCode();
        var pieces = new StubAllocator(code.Arena.Memory);
        Assert.True(pieces.TryTake(20, out VirtualAddress first, out _, owner: 0));
        Assert.True(pieces.TryTake(33, out VirtualAddress second, out _, owner: 7));
        Assert.True(pieces.TryTake(16, out VirtualAddress nobodys, out _));
        Assert.Equal([0, 0, 7, 7, -1, -1, -1],
            new[] { first, first + 31, second, second + 47, nobodys, nobodys + 16, code.Arena.Address + -1 }.Select(Owner));
        pieces.Give(second, 33);
        Assert.Equal([0, -1, -1, -1], new[] { first + 31, second, second + 47, nobodys }.Select(Owner));
        pieces.Give(first, 20);
        pieces.Give(nobodys, 16);
        Assert.Equal(0, pieces.PageCount);
        Assert.Equal(-1, Owner(first));

        int Owner(VirtualAddress address) => pieces.TryFindOwner(address, out uint owner) ? (int)owner : -1;
    }

    [Fact]
    public void Every_member_that_reads_the_arenas_memory_refuses_after_its_end()
    {
        var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0), new SiteWish(1));
        LivePatcher patcher = code.Patcher(code.Direct);
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        CodeReservation room = code.Arena.Allocate(64);
        Span<byte> kept = room.Span;
        Executor executor = code.Arena.RegisterExecutor();
        LiveSite site = block[0];
        code.Dispose();
        kept.Fill(1); // a host's own writes do no harm
        foreach (Action action in (Action[])
        [
            () => block.ToArray(), () => site.ToArray(), () => slots.FunctionOf(code.First), () => code.Arena.Dump(block),
            () => code.Arena.Dump(block.Address, 8),
            () => code.Arena.Reclaim(), () => code.Arena.Retire(block), () => code.Arena.SlotsOf(code.Layout),
            () => code.EmitFunction(new SiteWish(0)),
            () => code.Arena.Allocate(8), () => _ = room.Span, () => room.Commit(8), () => code.Arena.RegisterExecutor(), executor.Enter,
            () => patcher.Switch(code.Nops), () => patcher.Revert(), () => patcher.Bind(block),
            () => _ = new LivePatcher(code.Arena, code.Layout),
        ])
        {
            Assert.Equal(DiagnosticCodes.ArenaDisposed, Assert.Throws<PatchException>(action).Diagnostic.Code);
        }

        Assert.False(code.Arena.TryFindSite(site.Address, out _));
        Assert.False(code.Arena.TryFindCaller(site.End, out _));
        Assert.False(code.Arena.TryFindBlock(block.Address, out _));
        Assert.False(code.Arena.TryFindTrap(slots.AddressOf(code.First), out _));
        Assert.False(executor.IsInside);
        room.Dispose();
        executor.Dispose();
        Assert.False(executor.IsInside);
        patcher.Dispose();
        _ = (site.State, site.Target, site.Form, site.ToString(), block.ToString(), code.Arena.Used, code.Arena.Committed,
            block.Contains(block.Address));
        code.Dispose();
    }

    [Fact]
    public void Disposing_while_others_emit_read_and_retire_gives_them_a_refusal_and_nothing_else()
    {
        for (int round = 0; round < 10; round++)
        {
            var code = new LiveCode();
            CodeBlock block = code.EmitFunction(new SiteWish(0));
            SlotTable slots = code.Arena.SlotsOf(code.Layout);
            using Executor executor = code.Arena.RegisterExecutor();
            using var ready = new CountdownEvent(5);
            var failures = new System.Collections.Concurrent.ConcurrentQueue<Exception>();
            Thread[] others =
            [
                Until(() => code.EmitFunction(new SiteWish(0), new SiteWish(1))),
                Until(() => _ = block.ToArray().Length + block[0].ToArray().Length),
                Until(() => _ = slots.FunctionOf(code.First)),
                Until(() => code.Arena.Retire(code.EmitFunction(new SiteWish(2)))),
                Until(() =>
                    _ = code.Arena.Dump(block).Length + (code.Arena.TryFindSite(block[0].Address, out LiveSite site) ? site.Index : 0)),
            ];
            ready.Wait();
            code.Dispose();
            foreach (Thread other in others)
            {
                Assert.True(other.Join(TimeSpan.FromSeconds(30)));
            }

            Assert.Empty(failures);

            Thread Until(Action action)
            {
                var thread = new Thread(() =>
                {
                    for (int i = 0; ; i++)
                    {
                        try
                        {
                            action();
                        }
                        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.ArenaDisposed)
                        {
                            return;
                        }
                        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.ArenaFull)
                        {
                        }
                        catch (Exception e)
                        {
                            failures.Enqueue(e);
                            return;
                        }
                        finally
                        {
                            if (i == 0)
                            {
                                ready.Signal();
                            }
                        }
                    }
                });
                thread.Start();
                return thread;
            }
        }
    }

    [Fact]
    public void Memory_in_use_is_given_back_by_the_last_one_out()
    {
        var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using (ArenaMemory.Usage usage = code.Arena.Memory.Use())
        {
            code.Dispose();
            Assert.Equal(DiagnosticCodes.ArenaDisposed, Assert.Throws<PatchException>(() => code.Arena.Memory.Use()).Diagnostic.Code);
            Assert.NotEqual(0, code.Arena.Memory.Span(block.Address, 1)[0]);
            Assert.True(IsMapped(block.Address));
        }

        Assert.False(IsMapped(block.Address));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(64 << 10)]
    [InlineData((64 << 10) + 1)]
    [InlineData(1 << 20)]
    public void An_arena_is_as_big_as_asked_for_rounded_up_to_64_KiB(int size)
    {
        using CodeArena arena = CodeArena.Reserve(size: size);
        Assert.Equal((size + 0xffff) / 0x10000 * 0x10000, arena.Size);
        var a = new Assembler(64);
        a.mov(eax, 7);
        a.ret();
        Assert.Equal(7, LiveCode.Call(arena.Emit(a)));
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op")));
        Assert.Equal(0UL, arena.SlotsOf(layout).AddressOf(layout[0]).Value % 8);
    }

    [Fact]
    public void Arenas_nobody_disposes_of_give_their_descriptors_back_and_keep_their_code()
    {
        int before = Descriptors();
        var functions = new List<VirtualAddress>();
        for (int i = 0; i < 12; i++)
        {
            functions.Add(Forget()); // small ones: their code takes room near other arenas for as long as the tests run
        }

        for (int i = 0; i < 20 && Descriptors() > before + 6; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.InRange(Descriptors(), 0, before + 6); // other tests have arenas too
        Assert.All(functions, static f => Assert.Equal(7, ((delegate* unmanaged<long>)f.Value)()));
    }

    [Fact]
    public void Refused_memory_names_the_option_that_would_help()
    {
        using var platform = new FaultyPlatform { CommitsLeft = 0 };
        Assert.False(CodeArena.TryReserve(null, 1 << 20, new ArenaOptions { Platform = platform }, out _, out _));
        Assert.Contains("ArenaOptions.Protection",
            PvPatch.Live.Platform.LinuxPlatform.Refused("executable memory", 13, dualMapped: true).Help, StringComparison.Ordinal);
        Assert.Contains("WritableAndExecutable",
            PvPatch.Live.Platform.LinuxPlatform.Refused("executable memory", 13, dualMapped: true).Help, StringComparison.Ordinal);
        Assert.Contains("DualMapped", PvPatch.Live.Platform.LinuxPlatform.Refused("executable memory", 13, dualMapped: false).Help,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_block_that_another_arenas_site_is_linked_to_is_not_retired()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        CodeBlock caller = code.EmitFunction(new SiteWish(0));
        CodeBlock callee = other.EmitFunction(new SiteWish(1));
        using LivePatcher patcher = code.Patcher(code.Inlined);
        using LivePatcher otherPatcher = other.Patcher(other.Direct);
        patcher.Link(caller[0], callee.Address);
        Assert.Equal(2, LiveCode.Call(caller));
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => other.Arena.Retire(callee)).Diagnostic.Code);
        patcher.Unlink([caller[0]]);
        other.Arena.Retire(callee);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static VirtualAddress Forget()
    {
        var a = new Assembler(64);
        a.mov(eax, 7);
        a.ret();
        return CodeArena.Reserve(size: 64 << 10).Emit(a).Address;
    }

    private static int Descriptors() => Directory.EnumerateFileSystemEntries("/proc/self/fd").Count(static f => IsOfArena(f));

    private static bool IsOfArena(string descriptor)
    {
        try
        {
            return File.ResolveLinkTarget(descriptor, false)?.FullName.Contains("memfd:pvpatch", StringComparison.Ordinal) == true;
        }
        catch (FileNotFoundException)
        {
            return false; // another test has closed it since it was listed
        }
    }

    private static bool IsMapped(VirtualAddress address) =>
        PvPatch.Live.Platform.AddressGaps.Parse(File.ReadLines("/proc/self/maps"))
            .Exists(m => m.Start <= address.Value && address.Value < m.End);
}
