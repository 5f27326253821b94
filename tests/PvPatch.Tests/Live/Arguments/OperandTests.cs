using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Arguments;

/// <summary>One operation at sites that have their operands in different registers: in every form, and nothing else is changed.</summary>
public sealed unsafe class OperandTests
{
    private const int Kept = 77;

    private static readonly CallConvention s_own = CallConvention.Create(
        "own", [RegisterSet.Rbx, RegisterSet.R12], RegisterSet.Rbx, RegisterSet.Flags);

    private static readonly CallConvention s_swapped = CallConvention.Create(
        "swapped", [RegisterSet.Rsi, RegisterSet.Rdi], RegisterSet.R8, RegisterSet.Flags);

    [Fact]
    public void A_body_is_written_for_the_registers_of_each_site_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new OperandCode();
        using LivePatcher patcher = code.Patcher(code.OneInstruction);
        LiveSite[] sites = [code.Emit(null)[0], code.Emit(s_own)[0], code.Emit(s_swapped)[0]];
        patcher.Bind([.. sites.Select(static s => s.Block)]);
        string[] texts = ["cs; cs; lea (%rdi,%rsi),%rax", "cs; cs; lea (%rbx,%r12),%rbx", "cs; cs; lea (%rsi,%rdi),%r8"];
        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(
            64, [.. sites.Zip(texts, static (s, t) => new AssemblyPiece(s.Address.Value, t))]);
        for (int i = 0; i < sites.Length; i++)
        {
            Assert.Equal(LiveForm.OneInstruction, sites[i].Form);
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(sites[i].ToArray()));
        }
    }

    [Fact]
    public void The_thunk_before_the_slot_is_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new OperandCode(CallConvention.KernelSysV);
        using LivePatcher patcher = code.Patcher(code.Direct);
        LiveSite site = code.Emit(s_own)[0];
        VirtualAddress thunk = site.End + BitConverter.ToInt32(site.ToArray().AsSpan(2));
        byte[] found = code.Arena.Memory.Span(thunk, 64).ToArray();
        int call = Array.IndexOf(found, (byte)0xe8);
        VirtualAddress jump = thunk + call + 5 + BitConverter.ToInt32(found.AsSpan(call + 1));
        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).AddressOf(code.Layout[0]);
        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(64,
        [
            new AssemblyPiece(site.Address.Value, $"cs; call 0x{thunk.Value:x}"),
            new AssemblyPiece(thunk.Value,
                "push %rax; push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11; "
                + "push %rbx; push %r12; pop %rsi; pop %rdi; "
                + $"call 0x{jump.Value:x}; mov %rax,%rbx; "
                + "pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax; ret"),
            new AssemblyPiece(jump.Value, $"jmp *{slot - (jump + 6)}(%rip)"),
        ]);
        Assert.Equal(Convert.ToHexString(expected[0]), Convert.ToHexString(site.ToArray()[..expected[0].Length]));
        Assert.Equal(Convert.ToHexString(expected[1]), Convert.ToHexString(found, 0, expected[1].Length));
        Assert.Equal(Convert.ToHexString(expected[2]), Convert.ToHexString(code.Arena.Memory.Span(jump, 6)));
    }

    [Fact]
    public void Every_order_of_forms_gives_the_sum_and_keeps_all_else()
    {
        int seed = Random.Shared.Next();
        Console.WriteLine($"seed {seed}");
        var random = new Random(seed);
        using var code = new OperandCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        Backend[] backends =
            [code.Direct, code.OneInstruction, code.Several, code.Greedy, code.LeftAlone, code.Windows, code.Direct, code.Several];
        CallConvention?[] conventions = [null, s_own, s_swapped];
        var blocks = new List<(CodeBlock Block, CallConvention? Convention)>();
        for (int step = 0; step < 300; step++)
        {
            SwitchOptions options = random.Next(3) switch
            {
                0 => LiveCode.Quiescent,
                1 => LiveCode.Quiescent with { InPlace = true },
                _ => new SwitchOptions(),
            };
            LiveSite? site = blocks.Count == 0 ? null : blocks[random.Next(blocks.Count)].Block[0];
            switch (random.Next(6))
            {
                case 0 or 1:
                    CallConvention? convention = conventions[random.Next(3)];
                    blocks.Add((code.Emit(convention, random.Next(8, 16), random.Next(64), random.Next(2) == 0), convention));
                    break;
                case 2 when site is not null:
                    patcher.TryLink([new SiteLink(site.Value, random.Next(2) == 0 ? code.Add : null)], options);
                    break;
                case 3 when random.Next(3) == 0:
                    patcher.Revert(LiveCode.Quiescent);
                    break;
                default:
                    patcher.TrySwitch(backends[random.Next(backends.Length)], options);
                    break;
            }

            foreach ((CodeBlock block, CallConvention? convention) in blocks)
            {
                long found = code.Call(block, convention);
                Assert.True(found == 1042, $"seed {seed}, step {step}, {block[0]}, {convention}: {found}");
            }
        }
    }

    /// <summary>
    /// The thunk of such a site saves registers, and vector state only where the arena does: where it does not, a function that may destroy
    /// it is none for the site.
    /// </summary>
    [Fact]
    public void Without_saved_vector_state_a_function_that_may_destroy_it_is_refused_and_others_find_the_operands()
    {
        using var code = new OperandCode(saveVectorState: false);
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor(); // so that what is retired comes back
        CodeBlock own = code.Emit(s_own);
        foreach (Backend backend in (Backend[])[code.Direct, code.OneInstruction, code.Several, code.Narrow])
        {
            patcher.Switch(backend);
            Assert.Equal(1042, code.Call(own, s_own));
        }

        Assert.Equal((LiveForm.Call, PatchAction.ThunkCall), (own[0].Form, own[0].Action));
        byte[] before = own.ToArray();
        foreach (Backend backend in (Backend[])[code.Greedy, code.Windows, code.LeftAlone])
        {
            ApplyResult refused = patcher.TrySwitch(backend);
            Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.SlotFunction), (refused.Status, refused.Diagnostics[0].Code));
            Assert.Equal(before, own.ToArray());
            Assert.Equal(1042, code.Call(own, s_own));
        }

        // Without such a site they will do, and then no such site is let in; one that has its operands where the slot has is.
        code.Arena.Retire(own);
        code.Arena.Reclaim();
        patcher.Switch(code.Greedy);
        Assert.Equal(DiagnosticCodes.SlotFunction, Assert.Throws<PatchException>(() => code.Emit(s_own)).Diagnostic.Code);
        Assert.Equal(1042, code.Call(code.Emit(null), null));
    }

    [Fact]
    public void Links_identities_and_arguments_find_the_sites_registers()
    {
        using var code = new OperandCode();
        using LivePatcher patcher = code.Patcher(Backend.Create("identity", code.Layout, b => b.Identity64("t.add")));
        CodeBlock block = code.Emit(s_own);
        CodeBlock given = code.Emit(s_own, argument: new SiteArgument(5) { Register = RegisterSet.Rbx });
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(1000, code.Call(block, s_own));
            Assert.Equal(5, code.Call(given, s_own));
            patcher.Bind([block, given]);
        }

        Assert.Equal(PatchAction.Identity, block[0].Action);
        patcher.Link([new SiteLink(block[0], code.Add), new SiteLink(given[0], code.Add)]);
        Assert.Equal((1042L, 47L), (code.Call(block, s_own), code.Call(given, s_own)));
        Assert.Equal((code.Add, code.Add), (block[0].Target!.Value, given[0].Target!.Value));
        patcher.Unlink([block[0], given[0]]);
        Assert.Equal((1000L, 5L), (code.Call(block, s_own), code.Call(given, s_own)));
    }

    [Fact]
    public void Operands_that_can_not_be_passed_are_refused_and_nothing_is_emitted()
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op").Slot("leave", SlotKind.Jump)));
        CallConvention none = CallConvention.Create("no stack", [RegisterSet.Rbx], RegisterSet.Rbx, RegisterSet.None, hasStack: false);
        (int Slot, CallConvention Convention, int Budget, RegisterSet? Clobbers)[] wrong =
            [(1, s_own, 6, null), (0, none, 6, null), (0, s_own, 16, null), (0, s_own, 6, RegisterSet.Rax)];
        foreach ((int slot, CallConvention convention, int budget, RegisterSet? clobbers) in wrong)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(layout);
            PatchException e = Assert.Throws<PatchException>(
                () => sites.Emit(a, layout[slot], budget, clobbers, SitePlacement.None, convention: convention));
            Assert.Equal((DiagnosticCodes.SiteArgument, convention.Name), (e.Diagnostic.Code, e.Diagnostic.Found));
            Assert.Equal((0, 0), (sites.Count, a.Instructions.Count));
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => s_own.ArgumentRegister(2));
        Assert.Throws<InvalidOperationException>(
            () => CallConvention.Create("none", [], RegisterSet.None, RegisterSet.None).ResultRegister);
    }

    private sealed class OperandCode : IDisposable
    {
        public OperandCode(CallConvention? convention = null, bool saveVectorState = true)
        {
            Layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("add"), convention));
            Arena = CodeArena.Reserve(size: 8 << 20, options: new ArenaOptions { SaveVectorState = saveVectorState });
            Add = Function(static a => a.lea(rax, __[rdi + rsi]));
            VirtualAddress narrow = Function(AddAndDestroy);
            VirtualAddress greedy = Function(static a =>
            {
                AddAndDestroy(a);
                a.pxor(xmm0, xmm0);
            });
            VirtualAddress windows = Function(static a => a.lea(rax, __[rcx + rdx]));
            Direct = Backend.Create("direct", Layout, b => b.Call("t.add", Add, "add", RegisterSet.Rax));
            Greedy = Backend.Create("greedy", Layout, b => b.Call("t.add", greedy, "greedy"));
            Windows = Backend.Create("windows", Layout, b => b.Set(
                "t.add", Operation.Call(windows, "windows").CalledBy(CallConvention.WindowsX64)));
            Narrow = Backend.Create("narrow", Layout, b => b.Call("t.add", narrow, "narrow", CallConvention.KernelSysV.DestroyedBy(64)));
            LeftAlone = Backend.Create("left alone", Layout, b => b.Set("t.add", Operation.Call(greedy).LeftAloneByBackend()));
            OneInstruction = Inline("one", static (a, c) => a.lea(c.ResultRegister, __[c.ArgumentRegister(0) + c.ArgumentRegister(1)]));
            Several = Inline("several", static (a, c) =>
            {
                a.lea(c.ResultRegister, __[c.ArgumentRegister(0) + c.ArgumentRegister(1) + 1]);
                a.lea(c.ResultRegister, __[c.ResultRegister - 1]);
            });
        }

        public OpsLayout Layout { get; }

        public CodeArena Arena { get; }

        public VirtualAddress Add { get; }

        public Backend Direct { get; }

        public Backend Greedy { get; }

        /// <summary>Destroys all but vector state.</summary>
        public Backend Narrow { get; }

        public Backend Windows { get; }

        public Backend LeftAlone { get; }

        public Backend OneInstruction { get; }

        public Backend Several { get; }

        public LivePatcher Patcher(Backend backend)
        {
            var patcher = new LivePatcher(Arena, Layout);
            patcher.Switch(backend, LiveCode.Quiescent);
            return patcher;
        }

        /// <summary>
        /// long f(long first, long second): the operands where the site wants them, 77 in all other registers; the result, or -1 where
        /// another register was changed that the site's convention keeps.
        /// </summary>
        public CodeBlock Emit(
            CallConvention? convention, int budget = 6, int start = -1, bool forwarding = false, SiteArgument argument = default)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(Layout);
            CallConvention seen = convention ?? Layout[0].Convention;
            Label wrong = a.CreateLabel();
            Label done = a.CreateLabel();
            AssemblerRegister64[] saved = [rbx, rbp, r12, r13, r14, r15];
            AssemblerRegister64[] all = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
            AssemblerRegister64[] operands = [seen.ArgumentRegister(0), seen.ArgumentRegister(1)];
            Array.ForEach(saved, a.push);
            a.sub(rsp, 8);
            a.push(rdi);
            a.push(rsi);
            a.pop(operands[1]);
            a.pop(operands[0]);
            foreach (AssemblerRegister64 register in all.Except(operands))
            {
                a.mov(register, Kept);
            }

            sites.Emit(
                a, Layout[0], budget, null, SitePlacement.None, SiteTraits.None, forwarding, start, argument, convention);
            RegisterSet kept = ~seen.DestroyedBy(64);
            foreach (AssemblerRegister64 register in all)
            {
                int number = ((Register)register).GetNumber();
                if (kept.Contains(RegisterSet.General(number)))
                {
                    a.cmp(register, register == operands[1] ? 42 : register == operands[0] ? 1000 : Kept);
                    a.jne(wrong);
                }
            }

            a.mov(rax, seen.ResultRegister);
            a.jmp(done);
            a.Label(ref wrong);
            a.mov(rax, -1);
            a.Label(ref done);
            a.add(rsp, 8);
            Array.ForEach([.. saved.Reverse()], a.pop);
            a.ret();
            sites.EmitForwarding(a);
            return Arena.Emit(a, sites);
        }

        public long Call(CodeBlock block, CallConvention? _) => ((delegate* unmanaged<long, long, long>)block.Address.Value)(1000, 42);

        public void Dispose() => Arena.Dispose();

        private static void AddAndDestroy(Assembler a)
        {
            a.lea(rax, __[rdi + rsi]);
            foreach (AssemblerRegister64 register in (AssemblerRegister64[])[rcx, rdx, rsi, rdi, r8, r9, r10, r11])
            {
                a.xor(register, register);
            }
        }

        private Backend Inline(string name, Action<Assembler, CallConvention> write) =>
            Backend.Create(name, Layout, b => b.Set("t.add", Operation.Inline(InlineBody.Create(write))));

        private VirtualAddress Function(Action<Assembler> write)
        {
            var a = new Assembler(64);
            write(a);
            a.ret();
            return Arena.Emit(a).Address;
        }
    }
}
