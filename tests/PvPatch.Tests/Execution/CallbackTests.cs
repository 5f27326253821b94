using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Execution;

/// <summary>
/// A C# method called from a site that allows nothing at all: everything is afterwards as it was, and where a thunk leaves something out,
/// that is seen.
/// </summary>
[Collection(nameof(CallbackTests))]
public sealed unsafe class CallbackTests
{
    private static readonly OpsLayout s_layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("call")));

    private static VirtualAddress s_destroyer;
    private static (ulong First, ulong Second, ulong Third) s_arguments;
    private static int s_calls;

    /// <summary>How vector state can be saved here: every way the processor has.</summary>
    public static TheoryData<string> Forms => ["Fxsave", "Xsave", "Xsavec"];

    [Theory]
    [MemberData(nameof(Forms))]
    public void A_site_that_allows_nothing_keeps_everything_over_a_call_of_a_method_that_destroys_all(string form)
    {
        using var run = new Callback(Save(form));
        string[] beyond = form == "Fxsave" ? ["ymm", "k", "zmm", "zmm16"] : []; // where a system has only fxsave, nobody has these
        for (int i = 0; i < 100; i++)
        {
            // Through the slot first, then directly.
            CodeBlock block = run.Emit(RegisterSet.None, run.Random.Next(64));
            Assert.Equal(LiveForm.Original, block[0].Form);
            run.Check(block, beyond);
            run.Patcher.Bind(block);
            Assert.Equal((LiveForm.Call, PatchAction.ThunkCall), (block[0].Form, block[0].Action));
            run.Check(block, beyond);
        }

        Assert.Equal(200, s_calls);
    }

    [Fact]
    public void What_a_site_allows_is_not_saved()
    {
        using var run = new Callback(VectorSave.Current);
        RegisterSet destroyed = CallConvention.SysV.DestroyedBy(64);
        for (int i = 0; i < 100; i++)
        {
            RegisterSet allowed = RegisterSet.FromBits((uint)run.Random.Next(1 << 18)) & destroyed;
            bool plain = allowed.Contains(RegisterSet.Vector); // then the site's stack and flags are what the method gets
            CodeBlock block = run.Emit(allowed, plain ? 0 : run.Random.Next(64));
            run.Patcher.Bind(block);
            IReadOnlyList<string> changed = run.State.Run(block, plain);
            RegisterSet seen = RegisterSet.None;
            foreach (string name in changed)
            {
                bool isVector = WholeState.Parts.Any(p => p.Name == name);
                seen |= isVector ? RegisterSet.Vector : name == "red zone" ? RegisterSet.None : RegisterSet.Parse(name);
            }

            Assert.True(plain || !changed.Contains("red zone"));
            Assert.True(allowed.Contains(seen), $"allowed {allowed}, changed {string.Join(",", changed)}");
        }
    }

    [Fact]
    public void A_thunk_that_leaves_out_a_component_is_seen()
    {
        var seen = new HashSet<string>();
        (int Bit, string Name)[] components = [(0, "x87"), (1, "xmm"), (2, "ymm"), (5, "k"), (6, "zmm"), (7, "zmm16")];
        foreach ((int bit, string name) in components.Where(static c => WholeState.Parts.Any(p => p.Name == c.Name)))
        {
            VectorSave all = Save("Xsavec");
            using var run = new Callback(all with { Mask = all.Mask & ~(1u << bit) });
            CodeBlock block = run.Emit(RegisterSet.None, 0);
            for (int i = 0; i < 4; i++)
            {
                Assert.Contains(name, run.State.Run(block));
                seen.UnionWith(run.State.Run(block));
            }
        }

        Assert.Contains("mxcsr", seen);
    }

    [Fact]
    public void A_target_said_to_destroy_less_than_it_does_is_seen()
    {
        RegisterSet all = CallConvention.SysV.DestroyedBy(64);
        foreach (int number in (int[])[0, 1, 2, 6, 7, 8, 9, 10, 11])
        {
            RegisterSet one = RegisterSet.General(number);
            using var run = new Callback(VectorSave.Current, all.Except(one));
            Assert.Equal([one.ToString()], run.State.Run(run.Emit(RegisterSet.None, 0)));
        }

        using var vectors = new Callback(VectorSave.Current, all.Except(RegisterSet.Vector));
        Assert.Contains("xmm", vectors.State.Run(vectors.Emit(RegisterSet.None, 0), tame: true));
    }

    [Fact]
    public void The_harness_sees_everything_a_function_destroys()
    {
        using var run = new Callback(VectorSave.Current);
        IReadOnlyList<string> changed = run.State.Run(run.Emit(CallConvention.SysV.DestroyedBy(64), 0), tame: true);
        Assert.Superset(
            new HashSet<string>(["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "flags", "red zone",
                .. WholeState.Parts.Select(static p => p.Name)]),
            new HashSet<string>(changed));
    }

    [Fact]
    public void An_arena_that_saves_no_vector_state_refuses_what_would_need_it()
    {
        using var arena = CodeArena.Reserve(size: 1 << 20, options: new ArenaOptions { SaveVectorState = false });
        using var state = new WholeState(arena, TestSeed.NewRandom());
        using var patcher = new LivePatcher(arena, s_layout);
        CodeBlock block = state.Emit(new SiteEmitter(s_layout), s_layout[0], RegisterSet.None, 0);
        Assert.False(patcher.TrySwitch(Callback.Backend(null), null, null, out ApplyResult result));
        Assert.Equal(DiagnosticCodes.SlotFunction, Assert.Single(result.Diagnostics).Code);
        Assert.Contains("vector", result.Diagnostics[0].Message, StringComparison.Ordinal);
        Assert.Equal(LiveSiteState.Original, block[0].State);
    }

    [Fact]
    public void The_area_is_as_large_as_the_processor_says()
    {
        // A processor with AVX-512 and AMX, as Intel's manual gives the sizes and offsets of its components.
        VectorSave.Cpuid amx = static (leaf, subleaf) => (leaf, subleaf) switch
        {
            (0, _) => (0x20, 0, 0, 0),
            (1, _) => (0, 0, 1 << 27, 0),
            (0xd, 0) => (0x602e7, 11008, 11008, 0),
            (0xd, 1) => (0x1f, 0, 0, 0),
            (0xd, 2) => (256, 576, 0, 0),
            (0xd, 5) => (64, 1088, 0, 0),
            (0xd, 6) => (512, 1152, 0, 0),
            (0xd, 7) => (1024, 1664, 0, 0),
            (0xd, 9) => (8, 2688, 0, 0),
            (0xd, 17) => (64, 2752, 2, 0),
            (0xd, 18) => (8192, 2816, 6, 0),
            _ => default,
        };
        Assert.Equal(new VectorSave(VectorSaveForm.Xsavec, 0x600e7, 576 + 256 + 64 + 512 + 1024 + 64 + 8192), VectorSave.Of(amx));
        Assert.Equal(
            new VectorSave(VectorSaveForm.Xsave, 0x600e7, 11008),
            VectorSave.Of((leaf, subleaf) => (leaf, subleaf) == (0xd, 1) ? (1, 0, 0, 0) : amx(leaf, subleaf)));
        Assert.Equal(
            new VectorSave(VectorSaveForm.Fxsave, 0, 512), VectorSave.Of((leaf, subleaf) => leaf == 1 ? default : amx(leaf, subleaf)));
        Assert.Equal(new VectorSave(VectorSaveForm.Fxsave, 0, 512), VectorSave.Of(static (_, _) => default));
    }

    private static VectorSave Save(string form)
    {
        Requirement.That(WholeState.IsSupported, "a processor and system with xsave");
        VectorSave all = VectorSave.Current;
        return form switch
        {
            "Fxsave" => new VectorSave(VectorSaveForm.Fxsave, 0, VectorSave.Header),
            "Xsave" => VectorSave.Of(static (leaf, subleaf) => (leaf, subleaf) == (0xd, 1) ? default : X86Base.CpuId(leaf, subleaf)),
            _ => all,
        };
    }

    /// <summary>What a callback may do: calls, vectors, floating point, memory from the collector.</summary>
    [UnmanagedCallersOnly]
    private static void Destroy(ulong first, ulong second, ulong third)
    {
        s_calls++;
        s_arguments = (first, second, third);
        object[] garbage = [.. Enumerable.Range(0, 50).Select(static i => (object)new byte[i])];
        if (s_calls % 50 == 0)
        {
            GC.Collect();
        }

        Vector512<double> sum = Vector512.Create((double)garbage.Length) / Vector512.Create(3.0);
        s_arguments.First += (ulong)BitOperations.PopCount((ulong)sum[0]) * 0;
        ((delegate* unmanaged<void>)s_destroyer.Value)();
    }

    /// <summary>An arena, a patcher switched to a backend that calls <see cref="Destroy"/>, and code around a site.</summary>
    private sealed class Callback : IDisposable
    {
        private readonly CodeArena _arena;

        public Callback(VectorSave save, RegisterSet? destroys = null)
        {
            Requirement.That(WholeState.IsSupported, "a processor and system with xsave");
            _arena = CodeArena.Reserve(size: 1 << 20, options: new ArenaOptions { VectorSave = save });
            Random = TestSeed.NewRandom();
            State = new WholeState(_arena, Random);
            Patcher = new LivePatcher(_arena, s_layout);
            s_destroyer = State.Destroyer;
            s_calls = 0;
            Patcher.Switch(Backend(destroys));
        }

        public Random Random { get; }

        public WholeState State { get; }

        public LivePatcher Patcher { get; }

        public static Backend Backend(RegisterSet? destroys) => Mechanisms.Backend.Create("methods", s_layout, b => b.Call(
            "t.call", ManagedTarget.Of((delegate* unmanaged<ulong, ulong, ulong, void>)&Destroy), "Destroy", destroys));

        public CodeBlock Emit(RegisterSet allowed, int misaligned) =>
            State.Emit(new SiteEmitter(s_layout), s_layout[0], allowed, misaligned);

        public void Check(CodeBlock block, string[] beyond)
        {
            Assert.Equal([], State.Run(block).Except(beyond));
            Assert.Equal((State.General(7), State.General(6), State.General(2)), s_arguments);
        }

        public void Dispose()
        {
            Patcher.Dispose();
            State.Dispose();
            _arena.Dispose();
        }
    }
}
