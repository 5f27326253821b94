using Iced.Intel;
using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

public sealed class ArenaTests
{
    private static readonly OpsLayout s_layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op")));

    [Fact]
    public void No_page_is_ever_writable_and_executable()
    {
        using var code = new LiveCode();
        code.EmitFunction(new SiteWish(0));
        string[] executable = [.. MapLines(code.Arena.Address, code.Arena.Size).Where(static l => l[2] == 'x')];
        Assert.NotEmpty(executable);
        Assert.All(MapLines(code.Arena.Address, code.Arena.Size), static l => Assert.Equal('-', l[1]));
        Assert.False(code.Arena.IsWritableAndExecutable);
    }

    [Fact]
    public void A_block_is_80_bytes_beside_its_sites()
    {
        using var code = new LiveCode();
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        const int Blocks = 1000;
        var blocks = new CodeBlock[Blocks];
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Blocks; i++)
        {
            blocks[i] = new CodeBlock(code.Arena, slots, code.Arena.Address, 64, []);
        }

        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 1, Blocks * 80);
        Assert.Equal(code.Arena, blocks[0].Arena);
    }

    [Fact]
    public void Slots_are_not_executable()
    {
        using var code = new LiveCode();
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        Assert.Equal("r--", Assert.Single(MapLines(slots.Address, 8))[..3]);
    }

    [Fact]
    public void Writable_and_executable_memory_is_had_only_by_that_name()
    {
        using CodeArena arena = CodeArena.Reserve(options: new ArenaOptions { Protection = ArenaProtection.WritableAndExecutable });
        Assert.True(arena.IsWritableAndExecutable);
        Assert.Contains(MapLines(arena.Address, arena.Size), static l => l.StartsWith("rwx", StringComparison.Ordinal));
        var a = new Assembler(64);
        a.mov(eax, 7);
        a.ret();
        Assert.Equal(7, LiveCode.Call(arena.Emit(a, new SiteEmitter(OpsLayout.Create(static _ => { })))));
    }

    [Fact]
    public void An_arena_near_an_address_is_in_reach_of_it_with_every_byte()
    {
        // Far from where the runtime and the system map: there is room.
        using CodeArena other = CodeArena.Reserve(0x1000_0000_0000, 1 << 20);
        using CodeArena arena = CodeArena.Reserve(other.Address, 1 << 20, new ArenaOptions { MustReach = true });
        Assert.True(arena.Reaches(other.Address));
        Assert.InRange(arena.Address - other.Address, int.MinValue, int.MaxValue);
        Assert.InRange(arena.Address + arena.Size - other.Address, int.MinValue, int.MaxValue);
    }

    [Fact]
    public void Where_nothing_is_in_reach_the_error_says_so_if_it_is_a_must()
    {
        VirtualAddress nowhere = 0xffff_0000_0000_0000;
        Assert.False(CodeArena.TryReserve(
            nowhere, 1 << 20, new ArenaOptions { MustReach = true }, out CodeArena? arena, out PatchDiagnostic? error));
        Assert.Null(arena);
        Assert.Equal(DiagnosticCodes.ArenaOutOfReach, error.Code);
        Assert.Equal(nowhere, error.Address);
    }

    [Fact]
    public unsafe void Near_a_method_of_the_runtime_there_is_an_arena_of_any_size_in_reach_or_not()
    {
        VirtualAddress method = ManagedTarget.Of((delegate* unmanaged<long>)&Seven);
        foreach (int megabytes in (int[])[1, 64, 256])
        {
            using CodeArena arena = CodeArena.Reserve(method, megabytes << 20);
            Backend backend = Backend.Create("managed", s_layout, b => b.Call("t.op", method, "Seven"));
            var a = new Assembler(64);
            var sites = new SiteEmitter(s_layout);
            a.sub(rsp, 8);
            sites.Emit(a, s_layout[0]);
            a.add(rsp, 8);
            a.ret();
            CodeBlock block = arena.Emit(a, sites);
            using var patcher = new LivePatcher(arena, s_layout);
            ApplyResult result = patcher.Switch(backend);
            Assert.Equal(7, LiveCode.Call(block));
            if (arena.Reaches(method))
            {
                Assert.Equal(LiveForm.Call, block[0].Form);
            }
            else if (block[0].Form == LiveForm.Original)
            {
                Assert.Equal(PvPatch.Plans.PatchReason.OutOfReach, result.Outcomes[0].Reason);
            }
        }
    }

    [Fact]
    public void Refused_memory_is_an_error_with_the_systems_own_words()
    {
        using var platform = new FaultyPlatform { RefusesMemory = true };
        Assert.False(CodeArena.TryReserve(null, 1 << 20, new ArenaOptions { Platform = platform }, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.ArenaRefused, error.Code);
        Assert.Contains("error 1", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_refused_commit_leaves_the_arena_as_it_was()
    {
        using var platform = new FaultyPlatform();
        using var code = new LiveCode(platform, size: 4 << 20);
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Direct);
        platform.CommitsLeft = 0;
        long used = code.Arena.Used;
        PatchException e = Assert.Throws<PatchException>(() => code.Arena.Allocate(1 << 20));
        Assert.Equal(DiagnosticCodes.ArenaRefused, e.Diagnostic.Code);
        Assert.Equal(used, code.Arena.Used);
        Assert.Equal(2, LiveCode.Call(block));
        platform.CommitsLeft = -1;
        code.Arena.Allocate(1 << 20).Dispose();
    }

    [Fact]
    public void A_full_arena_says_how_much_is_free()
    {
        using var code = new LiveCode(size: 256 << 10);
        PatchException e = Assert.Throws<PatchException>(() => code.Arena.Allocate(1 << 20));
        Assert.Equal(DiagnosticCodes.ArenaFull, e.Diagnostic.Code);
        e = Assert.Throws<PatchException>(() =>
        {
            for (int i = 0; i < 10_000; i++)
            {
                code.EmitFunction(new SiteWish(0));
            }
        });
        Assert.Equal(DiagnosticCodes.ArenaFull, e.Diagnostic.Code);
        Assert.Contains("bytes free", e.Diagnostic.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_full_arena_refuses_a_batch_that_needs_islands_and_leaves_the_code_running()
    {
        using var code = new LiveCode(size: 256 << 10);
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        var blocks = new List<CodeBlock>();
        try
        {
            while (true)
            {
                blocks.Add(code.EmitFunction(new SiteWish(0)));
            }
        }
        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.ArenaFull)
        {
        }

        patcher.Switch(code.Inlined);
        byte[] before = LiveCode.Snapshot(blocks);
        ApplyResult result = patcher.TrySwitch(code.Outlined);
        Assert.Equal(ApplyStatus.Refused, result.Status);
        Assert.Equal(DiagnosticCodes.ArenaFull, result.Diagnostics[0].Code);
        Assert.Equal(before, LiveCode.Snapshot(blocks));
        Assert.Equal(1, LiveCode.Call(blocks[0]));

        // What the finding says to do helps: the refusal is not remembered.
        code.Arena.Retire(blocks[1..]);
        code.Arena.Reclaim();
        Assert.True(patcher.TrySwitch(code.Outlined).Succeeded);
        Assert.Equal(3, LiveCode.Call(blocks[0]));
    }

    [Fact]
    public void A_target_out_of_reach_is_called_through_the_slot()
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        Assert.False(code.Arena.Reaches(low.Address));
        var a = new Assembler(64);
        a.mov(eax, 8);
        a.ret();
        VirtualAddress far = low.Emit(a, new SiteEmitter(s_layout)).Address;
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.Switch(code.Inlined.Derive("far", b => b.Call("t.first", far, "far", RegisterSet.Rax)));
        Assert.Equal(PvPatch.Plans.PatchReason.OutOfReach, result.Outcomes[0].Reason);
        Assert.Equal(LiveForm.Original, block[0].Form);
        Assert.Equal(8, LiveCode.Call(block));
    }

    [Fact]
    public void Rooms_of_a_hosts_own_emitter_are_written_elsewhere_than_they_run()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        using CodeReservation room = code.Arena.Allocate(100);
        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).AddressOf(code.First);
        byte[] function = [0x31, 0xc0, 0x50, 0xff, 0x15, 0, 0, 0, 0, 0x59, 0xc3]; // xor eax,eax; push rax; call [slot]; pop rcx; ret
        BitConverter.TryWriteBytes(function.AsSpan(5), (int)(slot - (room.Address + 9)));
        function.CopyTo(room.Span);
        CodeBlock block = room.Commit(
            function.Length, code.Layout, SiteTable.Create(new PatchSite(room.Address + 3, 0, 6, RegisterSet.Rax)));
        Assert.Equal(1, LiveCode.Call(block));
        patcher.Switch(code.Direct);
        Assert.Equal(2, LiveCode.Call(block));
        Assert.Equal(LiveForm.Call, block[0].Form);
        patcher.Revert();
        Assert.Equal(function, block.ToArray());
    }

    [Fact]
    public void Targets_at_the_edge_of_reach_are_called_and_those_behind_it_left_to_the_slot()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        VirtualAddress end = block[0].Address + 6;
        var body = new LiveBody
        {
            Form = LiveForm.Call,
            Action = PvPatch.Plans.PatchAction.Call,
            Field = 2,
            Bytes = SiteBytes.From([0x2e, 0xe8, 0, 0, 0, 0])
        };
        Assert.True(body.TryFinish(end, end + int.MaxValue, out SiteBytes last));
        Assert.Equal("2e e8 ff ff ff 7f", HexBytes.Format(last.ToArray(6)));
        Assert.False(body.TryFinish(end, end + int.MaxValue + 1L, out _));
        Assert.True(body.TryFinish(end, end + int.MinValue, out SiteBytes first));
        Assert.Equal("2e e8 00 00 00 80", HexBytes.Format(first.ToArray(6)));
        Assert.False(body.TryFinish(end, end + (int.MinValue - 1L), out _));
    }

    [System.Runtime.InteropServices.UnmanagedCallersOnly]
    private static long Seven() => 7;

    private static IEnumerable<string> MapLines(VirtualAddress address, long size)
    {
        foreach (string line in File.ReadLines("/proc/self/maps"))
        {
            AddressGaps.Mapping mapping = AddressGaps.Parse([line])[0];
            if (mapping.Start < address.Value + (ulong)size && address.Value < mapping.End)
            {
                yield return line.Split(' ')[1];
            }
        }
    }
}
