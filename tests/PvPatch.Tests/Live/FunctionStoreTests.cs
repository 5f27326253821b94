using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// The functions an arena makes for its slots: each once, and none where there is no room or what it refers to is out of reach.
/// </summary>
public sealed unsafe class FunctionStoreTests
{
    private const ulong Far = 0x10; // out of reach of every arena a system gives

    [Fact]
    public void Functions_thunks_and_far_jumps_are_made_once()
    {
        using var code = new LiveCode();
        FunctionStore store = code.Arena.Functions;
        BodyFunction body = Function(Body("b8 01 00 00 00"));
        Assert.True(store.TryGet(body, out VirtualAddress function, out _));
        Assert.True(store.TryGet(Function(Body("b8 01 00 00 00")), out VirtualAddress again, out _));
        Assert.Equal(function, again);
        Assert.Equal("b8 01 00 00 00 c3", Bytes(function, 6)); // mov eax,1; ret

        // Jumped to, a body leaves as it is in a site; called, by way of the return address.
        AssembledBody leaves = Body(InlineBody.Create(a =>
        {
            a.test(edi, edi);
            a.js(code.Two.Value);
        }));
        Assert.True(store.TryGet(Function(leaves), out VirtualAddress called, out _));
        Assert.True(store.TryGet(new BodyFunction(leaves, called: false), out VirtualAddress jumped, out _));
        Assert.NotEqual(called, jumped);
        Assert.Equal((19, 9), (Function(leaves).Length, new BodyFunction(leaves, called: false).Length));
        Assert.Equal($"85 ff 0f 88 01 00 00 00 c3 48 8d 64 24 08 e9 {Rel32(code.Two - (called + 19))}", Bytes(called, 19));
        Assert.Equal($"85 ff 0f 88 {Rel32(code.Two - (jumped + 8))} c3", Bytes(jumped, 9));

        // One that never comes to its end needs no return.
        var goes = new BodyFunction(Body(InlineBody.Create(a => a.jmp(code.Two.Value))), called: false);
        Assert.True(store.TryGet(goes, out VirtualAddress gone, out _));
        Assert.Equal((5, $"e9 {Rel32(code.Two - (gone + 5))}"), (goes.Length, Bytes(gone, 5)));

        var request = new ThunkCode(code.Two, RegisterSet.Rcx, CallConvention.SysV);
        Assert.True(store.TryGetThunk(request, out VirtualAddress thunk, out _));
        Assert.True(store.TryGetThunk(request, out again, out _));
        Assert.Equal((thunk, code.Two), (again, store.TargetOf(thunk)));

        Assert.True(store.TryGetFar(Far, out VirtualAddress jump, out _));
        Assert.True(store.TryGetFar(Far, out again, out _));
        Assert.Equal((jump, new VirtualAddress(Far)), (again, store.TargetOf(jump)));
        Assert.Equal("ff 25 00 00 00 00 10 00 00 00 00 00 00 00", Bytes(jump, 14)); // jmp [rip+0]; the address
        Assert.Equal(function, store.TargetOf(function));

        // A thunk to a far jump leads where that leads, and is what a thunk that does not reach its target is made of.
        Assert.True(store.TryGetThunk(request with { Target = jump }, out VirtualAddress both, out _));
        Assert.Equal(new VirtualAddress(Far), store.TargetOf(both));
        Assert.True(store.TryGetThunk(request with { Target = Far }, out again, out _));
        Assert.Equal(both, again);
        Assert.True(store.TryGetThunk(request with { Target = Far }, out again, out _));
        Assert.Equal(both, again);
    }

    [Fact]
    public void What_does_not_reach_is_refused_and_its_room_given_back()
    {
        using var code = new LiveCode();
        FunctionStore store = code.Arena.Functions;
        AssembledBody calls = Body(InlineBody.Create(static a => a.call(Far)));
        AssembledBody leaves = Body(InlineBody.Create(static a =>
        {
            a.test(edi, edi);
            a.js(Far);
        }));
        for (int i = 0; i < 3; i++)
        {
            Assert.False(store.TryGet(Function(calls), out _, out PatchDiagnostic? error));
            Assert.Equal(DiagnosticCodes.SlotFunction, error!.Code);
            Assert.False(store.TryGet(Function(leaves), out _, out error));
            Assert.Equal(DiagnosticCodes.SlotFunction, error!.Code);
        }

        // As where none of these had been asked for.
        using var other = new LiveCode();
        Assert.True(store.TryGetFar(Far, out VirtualAddress jump, out _));
        Assert.True(other.Arena.Functions.TryGetFar(Far, out VirtualAddress first, out _));
        Assert.Equal(first - other.Arena.Address, jump - code.Arena.Address);
    }

    [Fact]
    public void A_full_arena_gives_no_function_and_says_so()
    {
        using var code = new LiveCode(size: 1 << 17);
        FunctionStore store = code.Arena.Functions;
        ulong target = Far;
        PatchDiagnostic? error;
        while (store.TryGetFar(target, out _, out error))
        {
            target++;
            Assert.True(target < 1 << 16, "the arena never fills");
        }

        Assert.Equal(DiagnosticCodes.ArenaFull, error!.Code);
        Assert.False(store.TryGetFar(target, out _, out error));
        Assert.Equal(DiagnosticCodes.ArenaFull, error!.Code);
        Assert.False(store.TryGet(Function(Body("b8 01 00 00 00")), out _, out error));
        Assert.Equal(DiagnosticCodes.ArenaFull, error!.Code);
        Assert.False(store.TryGetThunk(new ThunkCode(code.Two, RegisterSet.Rcx, CallConvention.SysV), out _, out error));
        Assert.Equal(DiagnosticCodes.ArenaFull, error!.Code);
        Assert.True(store.TryGetFar(Far, out _, out _)); // is there
    }

    [Fact]
    public void Sites_that_hold_the_wanted_bytes_are_counted()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1), new SiteWish(2, 20));
        using LivePatcher patcher = code.Patcher();
        foreach (bool inPlace in (bool[])[false, true])
        {
            SwitchOptions options = LiveCode.Quiescent with { InPlace = inPlace };
            ApplyResult result = patcher.Switch(code.Inlined, options);
            Assert.Equal(3, result.Written + result.AlreadyThere);
            Assert.Equal(result.AlreadyThere, Enumerable.Range(0, 3).Count(i => result.Outcomes[i].Change == SiteChange.AlreadyThere));
            result = patcher.Switch(code.Inlined, options);
            Assert.Equal((0, 3, 0), (result.Written, result.AlreadyThere, result.Barriers));
            Assert.Equal(1, LiveCode.Call(block));
        }
    }

    private static string Rel32(long distance) => HexBytes.Format(BitConverter.GetBytes((int)distance));

    private static BodyFunction Function(AssembledBody body) => new(body, called: true);

    private static string Bytes(VirtualAddress at, int length) => HexBytes.Format(new ReadOnlySpan<byte>((void*)at.Value, length));

    private static AssembledBody Body(string bytes) => Body(InlineBody.FromBytes(Convert.FromHexString(bytes.Replace(" ", ""))));

    private static AssembledBody Body(InlineBody body)
    {
        Assert.True(
            BodyBuilder.TryBuild(body, CallConvention.SysV, 64, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        return built;
    }
}
