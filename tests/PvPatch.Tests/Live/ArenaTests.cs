using Iced.Intel;
using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Ops;
using PvPatch.Sites;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

public sealed class ArenaTests
{
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
        VirtualAddress near = System.Runtime.InteropServices.NativeLibrary.GetExport(System.Runtime.InteropServices.NativeLibrary.Load("libc.so.6"), "getpid") is nint p ? (ulong)p : default;
        using CodeArena arena = CodeArena.Reserve(near, 16 << 20);
        Assert.InRange(arena.Address - near, int.MinValue, int.MaxValue);
        Assert.InRange(arena.Address + arena.Size - near, int.MinValue, int.MaxValue);
    }

    [Fact]
    public void Where_nothing_is_in_reach_the_error_says_so()
    {
        Assert.False(CodeArena.TryReserve(0xffff_0000_0000_0000, 1 << 20, null, out CodeArena? arena, out PatchDiagnostic? error));
        Assert.Null(arena);
        Assert.Equal(DiagnosticCodes.ArenaOutOfReach, error.Code);
        Assert.Equal(0xffff_0000_0000_0000, error.Address!.Value.Value);
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
        SwitchResult result = patcher.TrySwitch(code.Outlined);
        Assert.Equal(SwitchStatus.Refused, result.Status);
        Assert.Equal(DiagnosticCodes.ArenaFull, result.Diagnostics[0].Code);
        Assert.Equal(before, LiveCode.Snapshot(blocks));
        Assert.Equal(1, LiveCode.Call(blocks[0]));
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
        CodeBlock block = room.Commit(function.Length, code.Layout, SiteTable.Create(new PatchSite(room.Address + 3, 0, 6, RegisterSet.Rax)));
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
        var body = new LiveBody { Form = LiveForm.Call, Action = PvPatch.Plans.PatchAction.Call, Field = 2, Bytes = SiteBytes.From([0x2e, 0xe8, 0, 0, 0, 0]) };
        Assert.True(body.TryFinish(end, end + int.MaxValue, out SiteBytes last));
        Assert.Equal("2e e8 ff ff ff 7f", HexBytes.Format(last.ToArray(6)));
        Assert.False(body.TryFinish(end, end + int.MaxValue + 1L, out _));
        Assert.True(body.TryFinish(end, end + int.MinValue, out SiteBytes first));
        Assert.Equal("2e e8 00 00 00 80", HexBytes.Format(first.ToArray(6)));
        Assert.False(body.TryFinish(end, end + (int.MinValue - 1L), out _));
    }

    [Fact]
    public void A_target_out_of_reach_is_called_through_the_slot()
    {
        using var code = new LiveCode();
        using CodeArena far = CodeArena.Reserve(size: 1 << 20);
        CodeBlock block = code.EmitFunction(new SiteWish(0));

        // Two arenas may lie near each other; an address of the vsyscall page lies near nothing, and is code.
        VirtualAddress target = 0xffff_ffff_ff60_0000;
        Predicate<VirtualAddress>? isCode = LivePlatform.Current.ExecutableTest();
        if (isCode is not null && !isCode(target))
        {
            Assert.Equal(DiagnosticCodes.TargetNotExecutable, Refusal(code, target).Code);
            return;
        }

        using LivePatcher patcher = code.Patcher();
        SwitchResult result = patcher.Switch(code.Direct.Derive("far", b => b.Call("t.first", target, "far", RegisterSet.Rax)));
        Assert.Equal(PvPatch.Plans.PatchReason.OutOfReach, result[0].Reason);
        Assert.Equal(LiveForm.Original, block[0].Form);
    }

    private static PatchDiagnostic Refusal(LiveCode code, VirtualAddress target)
    {
        using LivePatcher patcher = code.Patcher();
        return patcher.TrySwitch(code.Direct.Derive("far", b => b.Call("t.first", target, "far", RegisterSet.Rax))).Diagnostics[0];
    }

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
