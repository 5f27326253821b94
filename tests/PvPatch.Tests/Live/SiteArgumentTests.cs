using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// What a site passes to its operation arrives in every form the site can take, whatever was there before, and is gone with the block.
/// </summary>
public sealed unsafe class SiteArgumentTests
{
    private static readonly RegisterSet s_rdi = RegisterSet.Rax | RegisterSet.Rdi;

    /// <summary>Values of each length of mov.</summary>
    private static readonly ulong[] s_values =
    [
        0, 1, 0x12345678, 0x80000000, uint.MaxValue, 0x1_00000000, 0xffffffff_80000000, 0xffffffff_7fffffff, ulong.MaxValue,
        0x8877665544332211,
    ];

    [Fact]
    public void Every_value_arrives_in_every_register_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        var pieces = new List<AssemblyPiece>();
        var found = new List<byte[]>();
        string[] names32 = ["eax", "ecx", "edx", "ebx", "", "ebp", "esi", "edi", .. Enumerable.Range(8, 8).Select(static n => $"r{n}d")];
        string[] names64 = ["rax", "rcx", "rdx", "rbx", "", "rbp", "rsi", "rdi", .. Enumerable.Range(8, 8).Select(static n => $"r{n}")];
        for (int number = 0; number < 16; number++)
        {
            for (int i = 0; i < s_values.Length && number != 4; i++)
            {
                ulong value = s_values[i];
                int other = number == 3 ? 15 : 3;
                var argument = new SiteArgument(value)
                {
                    Register = RegisterSet.General(number),
                    AddressRegister = i % 2 == 0 ? null : RegisterSet.General(other),
                };
                LiveSite site = code.Emit(argument, RegisterSet.All, start: i)[0];
                Assert.Equal(argument, site.Argument);
                byte[] bytes = site.ToArray();
                Assert.Equal([0x2e, 0xe8], bytes[..2]);
                VirtualAddress stub = site.End + BitConverter.ToInt32(bytes.AsSpan(2));
                (string mov, int length) = value <= uint.MaxValue ? ($"mov $0x{value:x},%{names32[number]}", number < 8 ? 5 : 6)
                    : value >= 0xffffffff_80000000 ? ($"mov ${(long)value},%{names64[number]}", 7)
                    : ($"movabs $0x{value:x},%{names64[number]}", 10);
                string lea = i % 2 == 0 ? "" : $"; lea {site.Address - (stub + length + 7)}(%rip),%{names64[other]}";
                int end = length + (i % 2 == 0 ? 6 : 13);
                pieces.Add(new AssemblyPiece(
                    stub.Value, $"{mov}{lea}; jmp *{code.Slots.AddressOf(code.Layout[0]) - (stub + end)}(%rip)"));
                pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; call 0x{stub.Value:x}"));
                found.Add(code.Arena.Memory.Span(stub, 32).ToArray());
                found.Add(bytes);
            }
        }

        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(64, pieces);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(found[i], 0, expected[i].Length));
        }
    }

    [Fact]
    public void The_argument_is_loaded_before_each_form_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        LiveSite site = code.Emit(0x1234, s_rdi, start: 8)[0];
        byte[] original = site.ToArray();
        var pieces = new List<AssemblyPiece>();
        var found = new List<byte[]>();
        VirtualAddress Follow(params byte[] opcode)
        {
            byte[] bytes = site.ToArray();
            Assert.Equal(opcode, bytes[..2]);
            found.Add(bytes);
            VirtualAddress to = site.End + BitConverter.ToInt32(bytes.AsSpan(2));
            found.Add(code.Arena.Memory.Span(to, 32).ToArray());
            return to;
        }

        patcher.Bind(site.Block);
        VirtualAddress there = Follow(0x2e, 0xe8);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; call 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; jmp 0x{code.Echo.Value:x}"));
        Assert.Equal((LiveForm.Call, PatchAction.Call, (VirtualAddress?)code.Echo), (site.Form, site.Action, site.Target));

        patcher.Switch(code.OneInstruction);
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; mov %rdi,%rax; jmp 0x{site.End.Value:x}"));
        Assert.Equal(LiveForm.Island, site.Form);

        patcher.Switch(code.Several);
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; lea 1(%rdi),%rax; lea -1(%rax),%rax; jmp 0x{site.End.Value:x}"));

        patcher.Switch(code.Constant); // does not read it: one instruction in the site
        found.Add(site.ToArray());
        pieces.Add(new AssemblyPiece(site.Address.Value, "cs; mov $7,%eax"));
        Assert.Equal(LiveForm.OneInstruction, site.Form);

        patcher.Switch(code.Constants); // nor do these
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $3,%eax; lea 4(%rax),%eax; jmp 0x{site.End.Value:x}"));

        patcher.Switch(code.Nops);
        found.Add(site.ToArray());
        pieces.Add(new AssemblyPiece(site.Address.Value, "{disp8} nopw 0(%rax,%rax,1)"));
        Assert.Equal((LiveForm.OneInstruction, PatchAction.Nop), (site.Form, site.Action));

        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(64, pieces);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(found[i], 0, expected[i].Length));
        }

        patcher.Revert();
        Assert.Equal(original, site.ToArray());
    }

    [Fact]
    public void What_a_body_calls_may_read_the_argument()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Nops);
        CodeBlock block = code.Emit(0x1234, s_rdi);
        foreach (Backend backend in (Backend[])[code.CallsDirectly, code.CallsIndirectly])
        {
            patcher.Switch(backend);
            Assert.Equal((0x1234L, LiveForm.Island), (LiveCode.Call(block), block[0].Form));
        }
    }

    [Fact]
    public void A_forwarding_island_goes_through_the_stub_too()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        LiveSite site = code.Emit(0x1234, s_rdi, start: 60, forwarding: true)[0];
        Assert.True(site.HasForwarding);
        VirtualAddress stub = site.End + BitConverter.ToInt32(site.ToArray().AsSpan(2));
        VirtualAddress island = site.Address + 2 + site.Record.Forward;
        byte[] expected = GnuAssembler.Assemble(
            64, [new AssemblyPiece(island.Value, $"cs; call 0x{stub.Value:x}; {{disp32}} jmp 0x{site.End.Value:x}")])[0];
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(code.Arena.Memory.Span(island, 11)));
        Assert.True(code.Arena.TryFindCaller(island + 6, out LiveSite caller));
        Assert.Equal(site, caller);
    }

    [Fact]
    public void Every_order_of_forms_gives_the_value_at_sites_of_every_class()
    {
        int seed = Random.Shared.Next();
        Console.WriteLine($"seed {seed}");
        var random = new Random(seed);
        using var code = new EchoCode(size: 16 << 20);
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        Backend[] backends = [code.Direct, code.OneInstruction, code.Several, code.Constant, code.Constants, code.Nops, code.Thunked,
            code.Identity, code.LeftAlone, code.CallsDirectly, code.CallsIndirectly];
        var blocks = new List<(CodeBlock Block, ulong Value, bool IsLinked)>();
        Backend current = code.Direct;
        for (int step = 0; step < 400; step++)
        {
            int index = blocks.Count == 0 ? 0 : random.Next(blocks.Count);
            SwitchOptions options = random.Next(3) switch
            {
                0 => LiveCode.Quiescent,
                1 => LiveCode.Quiescent with { InPlace = true },
                _ => new SwitchOptions(),
            };
            switch (random.Next(8))
            {
                case 0 or 1:
                    ulong value = s_values[random.Next(s_values.Length)];
                    blocks.Add((code.Emit(value, s_rdi, random.Next(6, 16), random.Next(64), random.Next(2) == 0), value, false));
                    break;
                case 2 when blocks.Count > 0:
                    Link(index, code.EchoPlus, options);
                    break;
                case 3 when blocks.Count > 0:
                    Link(index, null, options);
                    break;
                case 4 when random.Next(4) == 0:
                    patcher.Revert(LiveCode.Quiescent);
                    blocks = [.. blocks.Select(static b => b with { IsLinked = false })];
                    break;
                case 5 when blocks.Count > 20:
                    code.Arena.Retire(blocks[index].Block);
                    blocks.RemoveAt(index);
                    break;
                default:
                    Backend next = backends[random.Next(backends.Length)];
                    if (patcher.TrySwitch(next, options).Succeeded)
                    {
                        current = next;
                    }

                    break;
            }

            foreach ((CodeBlock block, ulong value, bool isLinked) in blocks)
            {
                executor.Enter();
                ulong found = (ulong)LiveCode.Call(block, argument: 99);
                executor.Leave();
                ulong expected = isLinked ? value + 1 : code.Expected(current, value);
                Assert.True(expected == found, $"seed {seed}, step {step}, {block[0]}, {current.Name}: {found:x}, not {expected:x}");
            }
        }

        void Link(int index, VirtualAddress? target, SwitchOptions options)
        {
            LiveSite site = blocks[index].Block[0];
            if (patcher.TryLink([new SiteLink(site, target, RegisterSet.Rax)], options).Succeeded)
            {
                blocks[index] = blocks[index] with { IsLinked = target is not null };
                Assert.True(target is null || site.Target == target);
            }
        }
    }

    [Fact]
    public void Threads_that_run_it_meanwhile_see_the_value_of_one_backend_or_another()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        const ulong Value = 0x8877665544332211;
        CodeBlock[] blocks = [.. Enumerable.Range(0, 64).Select(i => code.Emit(Value, s_rdi, 6 + i % 10, i, forwarding: i % 3 == 0))];
        bool stop = false;
        string? wrong = null;
        var runner = new Thread(() =>
        {
            using Executor executor = code.Arena.RegisterExecutor("runner");
            while (!Volatile.Read(ref stop))
            {
                executor.Enter();
                foreach (CodeBlock block in blocks)
                {
                    ulong found = (ulong)LiveCode.Call(block, argument: 99);
                    wrong = found is Value or 7 or 0 ? wrong : $"{block[0]}: {found:x}";
                }

                executor.Leave();
            }
        });
        runner.Start();
        Backend[] backends = [code.OneInstruction, code.Nops, code.Several, code.Constant, code.Direct];
        for (int i = 0; i < 300; i++)
        {
            patcher.Switch(backends[i % backends.Length]);
        }

        Volatile.Write(ref stop, true);
        runner.Join();
        Assert.Null(wrong);
    }

    [Fact]
    public void A_function_finds_its_caller_and_the_callers_argument_by_the_return_address()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct.Derive("return", b => b.Call("t.op", code.Returner, null, RegisterSet.Rax)));
        LiveSite site = code.Emit(0x4711, s_rdi)[0];
        foreach (bool bound in (bool[])[false, true])
        {
            if (bound)
            {
                patcher.Bind(site.Block);
            }

            Assert.Equal(bound ? LiveForm.Call : LiveForm.Original, site.Form);
            VirtualAddress returned = (ulong)LiveCode.Call(site.Block);
            Assert.Equal(site.End, returned);
            Assert.True(code.Arena.TryFindCaller(returned, out LiveSite caller));
            Assert.Equal((site, 0x4711UL), (caller, caller.Argument!.Value.Value));
            VirtualAddress stub = site.End + BitConverter.ToInt32(site.ToArray().AsSpan(2));
            Assert.True(code.Arena.TryFindSite(stub, out LiveSite owner)); // a signal in the stub
            Assert.Equal(site, owner);
            Assert.Contains($"argument of the site at {site.Address}", code.Arena.Dump(stub, 5), StringComparison.Ordinal);
            Assert.Contains("to argument", code.Arena.Dump(site.Block), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_sites_own_address_arrives_with_and_without_a_value()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Sum);
        RegisterSet allowed = s_rdi | RegisterSet.Rsi;
        CodeBlock both = code.Emit(new SiteArgument(5) { AddressRegister = RegisterSet.Rsi }, allowed);
        CodeBlock alone = code.Emit(new SiteArgument(null) { AddressRegister = RegisterSet.Rsi }, allowed);
        Assert.Null(alone[0].Argument!.Value.Value);
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(both[0].Address.Value + 5, (ulong)LiveCode.Call(both, argument: 99));
            Assert.Equal(alone[0].Address.Value + 99, (ulong)LiveCode.Call(alone, argument: 99));
            patcher.Bind([both, alone]);
        }

        Assert.Equal(LiveForm.Island, both[0].Form);
        Assert.Equal(LiveForm.Island, alone[0].Form);
    }

    [Fact]
    public void A_jump_site_passes_its_argument_too()
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("link", t => t.Slot("next", SlotKind.Jump)));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        VirtualAddress Target(int add)
        {
            var a = new Assembler(64);
            a.lea(rax, __[rdi + add]);
            a.ret();
            return arena.Emit(a).Address;
        }

        VirtualAddress one = Target(1);
        VirtualAddress two = Target(2);
        var end = new Assembler(64);
        end.ret();
        VirtualAddress leave = arena.Emit(end).Address;
        using var patcher = new LivePatcher(arena, layout);
        Backend jump = Backend.Create("jump", layout, b => b.Jump("link.next", one));
        foreach (bool forwarding in (bool[])[false, true])
        {
            patcher.Switch(jump);
            var a = new Assembler(64);
            var sites = new SiteEmitter(layout);
            a.nop();
            sites.Emit(
                a, layout[0], 6, RegisterSet.Rdi, SitePlacement.None, SiteTraits.None, forwarding, forwarding ? 60 : 0, argument: 0x100);
            CodeBlock block = arena.Emit(a, sites);
            Assert.Equal(0x101, LiveCode.Call(block, 7));
            patcher.Bind(block);
            Assert.Equal((LiveForm.Jump, (VirtualAddress?)one), (block[0].Form, block[0].Target));
            Assert.Equal(0x101, LiveCode.Call(block, 7));
            patcher.Link([new SiteLink(block[0], two)]);
            Assert.Equal(0x102, LiveCode.Call(block, 7));
            Assert.Equal(two, block[0].Target);
            patcher.Switch(Backend.Create("inline", layout, b => b.Inline("link.next", a =>
            {
                a.lea(rax, __[rdi + 3]);
                a.jmp(leave.Value);
            })));
            Assert.Equal(LiveSiteState.Linked, block[0].State);
            patcher.Unlink([block[0]]);
            Assert.Equal(LiveForm.Island, block[0].Form);
            Assert.Equal(0x103, LiveCode.Call(block, 7));
            patcher.Switch(Backend.Create("leaves", layout, b => b.Inline("link.next", a => a.jmp(one.Value))));
            Assert.Equal((LiveForm.Island, 0x101L), (block[0].Form, LiveCode.Call(block, 7)));
        }
    }

    [Fact]
    public void Links_into_a_block_are_known_through_the_stub_and_targets_out_of_reach_are_reached()
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock target = code.EmitEcho(code.Arena, 10);
        CodeBlock far = code.EmitEcho(low, 20);
        Assert.False(code.Arena.Reaches(far.Address));
        CodeBlock block = code.Emit(0x1234, s_rdi);
        patcher.Link([new SiteLink(block[0], target.Address, RegisterSet.Rax)]);
        Assert.Equal((1, 0x1234 + 10), (target.IncomingLinkCount, LiveCode.Call(block)));
        Assert.Equal(
            DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(target)).Diagnostic.Code);
        patcher.Link([new SiteLink(block[0], far.Address, RegisterSet.Rax)]);
        Assert.Equal((0, 1, 0x1234 + 20), (target.IncomingLinkCount, far.IncomingLinkCount, LiveCode.Call(block)));
        Assert.Equal(far.Address, block[0].Target);
        patcher.Unlink(SiteScope.LinkedInto([far]));
        Assert.Equal((0, 0x1234), (far.IncomingLinkCount, LiveCode.Call(block)));
        low.Retire(far);

        // A switch leaves such a site to its slot.
        patcher.Switch(code.Direct.Derive("far", b => b.Call("t.op", code.EmitEcho(low, 30).Address, null, RegisterSet.Rax)));
        Assert.Equal((LiveForm.Original, PatchReason.OutOfReach), (block[0].Form, block[0].Reason));
        Assert.Equal(0x1234 + 30, LiveCode.Call(block));
    }

    [Fact]
    public void A_plan_names_the_function_before_and_after_its_stub_is_placed()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Nops);
        CodeBlock block = code.Emit(0x1234, s_rdi);
        patcher.Bind(block);
        long used = code.Arena.Used;
        foreach ((Backend backend, VirtualAddress? target, string detail) in ((Backend, VirtualAddress?, string)[])
            [(code.Direct, code.Echo, "through a stub that has no place yet"), (code.Several, null, "in an island that has no place yet")])
        {
            LivePlan plan = patcher.Plan(c => c.Use(backend));
            PlanOutcome entry = plan.Plan[0].Outcome;
            Assert.Equal((target, detail), (entry.Target, entry.Detail));
            Assert.Equal(1, plan.Writes);
            Assert.Equal(used, code.Arena.Used);
            Assert.True(patcher.Apply(plan).Succeeded);
            Assert.Equal(target, block[0].Target);
            Assert.Equal(0x1234, LiveCode.Call(block));
            patcher.Switch(code.Nops);
            entry = patcher.Plan(c => c.Use(backend)).Plan[0].Outcome;
            Assert.Equal(target, entry.Target);
            Assert.Equal(target is null ? "in an island" : null, entry.Detail);
            used = code.Arena.Used;
        }
    }

    [Fact]
    public void What_stubs_and_islands_take_comes_back_with_the_block()
    {
        using var code = new EchoCode();
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        long high = 0;
        for (int round = 0; round < 300; round++)
        {
            CodeBlock[] blocks = [.. Enumerable.Range(0, 20).Select(i => code.Emit(0x8877665544332211 + (ulong)(round * 20 + i), s_rdi))];
            patcher.Switch(code.Direct);
            patcher.Switch(code.Several);
            patcher.Link([.. blocks.Select(b => new SiteLink(b[0], code.EchoPlus, RegisterSet.Rax))]);
            code.Arena.Retire(blocks);
            executor.Enter();
            executor.Leave();
            code.Arena.Reclaim();
            high = round < 20 ? Math.Max(high, code.Arena.Used) : high;
        }

        Assert.InRange(code.Arena.Used, 0, high);
    }

    [Fact]
    public void A_refused_emit_leaves_nothing_behind()
    {
        using var code = new EchoCode();

        // The body may jump out and destroys rcx, which could not be saved around it: a site that keeps rcx is refused (PV8030).
        using LivePatcher patcher = code.Patcher(code.Direct.Derive("leaves", b => b.Inline("t.op", a =>
        {
            a.mov(ecx, 1);
            a.js(code.Echo.Value);
        })));
        _ = Assert.Throws<PatchException>(() => code.Emit(1, s_rdi)); // makes the page
        long used = code.Arena.Used;
        for (int i = 0; i < 1000; i++)
        {
            Assert.Equal(DiagnosticCodes.SlotFunction, Assert.Throws<PatchException>(() => code.Emit(1, s_rdi)).Diagnostic.Code);
        }

        Assert.Equal(used, code.Arena.Used);
    }

    [Fact]
    public void A_batch_that_fails_at_any_step_leaves_the_argument_in_place()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [.. Enumerable.Range(0, 8).Select(i => code.Emit(0x1234, s_rdi, 6 + i, 8 * i + 1, forwarding: i % 2 == 0))];
        patcher.Bind(blocks);
        foreach (Backend backend in (Backend[])[code.Several, code.Constant, code.OneInstruction, code.Direct])
        {
            byte[] before = LiveCode.Snapshot(blocks);
            long[] values = [.. blocks.Select(static b => LiveCode.Call(b))];
            int fails = 0;
            for (bool failed = true; failed; fails++)
            {
                int left = fails;
                patcher.Probe = (_, _) => _ = left-- == 0 ? throw new InvalidOperationException("injected") : 0;
                ApplyResult result = patcher.TrySwitch(backend);
                failed = !result.Succeeded;
                if (failed)
                {
                    Assert.Equal(ApplyStatus.RolledBack, result.Status);
                    Assert.Equal(before, LiveCode.Snapshot(blocks));
                    Assert.Equal(values, blocks.Select(static b => LiveCode.Call(b)));
                }
            }

            Assert.InRange(fails, 5, 100);
            Assert.All(blocks, b => Assert.Equal(code.Expected(backend, 0x1234), (ulong)LiveCode.Call(b)));
            patcher.Probe = null;
        }
    }

    [Theory]
    [InlineData("rsp", "all", 6, null)]
    [InlineData("rdi,rsi", "all", 6, null)]
    [InlineData("-", "all", 6, null)]
    [InlineData("flags", "all", 6, null)]
    [InlineData("rdi", "rax,rsi", 6, null)]
    [InlineData("rdi", "all", 16, null)]
    [InlineData("rdi", "all", 6, "rdi")]
    [InlineData("rdi", "rdi", 6, "rsi")]
    [InlineData("rdi", "all", 6, "vector")]
    public void An_argument_that_can_not_be_passed_is_refused_and_nothing_is_emitted(
        string register, string allowed, int budget, string? address)
    {
        using var code = new EchoCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        var argument = new SiteArgument(1)
        {
            Register = RegisterSet.Parse(register),
            AddressRegister = address is null ? null : RegisterSet.Parse(address),
        };
        PatchException e = Assert.Throws<PatchException>(
            () => sites.Emit(a, code.Layout[0], budget, RegisterSet.Parse(allowed), SitePlacement.None, argument: argument));
        Assert.Equal(DiagnosticCodes.SiteArgument, e.Diagnostic.Code);
        Assert.NotNull(e.Diagnostic.Found);
        Assert.NotNull(e.Diagnostic.Help);
        Assert.Equal((0, 0), (sites.Count, a.Instructions.Count));
        Assert.Null(sites.Assembler);
    }

    [Fact]
    public void The_default_register_is_that_of_the_conventions_first_argument()
    {
        foreach ((CallConvention convention, RegisterSet register) in ((CallConvention, RegisterSet)[])
        [
            (CallConvention.SysV, RegisterSet.Rdi), (CallConvention.KernelSysV, RegisterSet.Rdi), (CallConvention.WindowsX64, RegisterSet.Rcx),
        ])
        {
            using var code = new EchoCode(convention: convention);
            Assert.Equal(register, code.Emit(1, null)[0].Argument!.Value.Register);
            Assert.Null(code.Emit(default, null)[0].Argument);
        }

        // Callee-save functions destroy rax only: the site has to allow the register.
        using var saving = new EchoCode(convention: CallConvention.CalleeSave);
        PatchException e = Assert.Throws<PatchException>(() => saving.Emit(1, null));
        Assert.Equal(DiagnosticCodes.SiteArgument, e.Diagnostic.Code);
        Assert.Equal("rdi; allowed: rax,flags", e.Diagnostic.Found);
    }

    [Fact]
    public void An_identity_gives_an_argument_back_that_is_in_the_register_of_the_result()
    {
        var convention = CallConvention.Create("in place", [RegisterSet.Rax], RegisterSet.Rax, RegisterSet.Rdi);
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op"), convention));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("identity", layout, b => b.Identity64("t.op")), LiveCode.Quiescent);
        CodeBlock Emit(SiteArgument argument)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(layout);
            a.sub(rsp, 8);
            a.xor(eax, eax);
            sites.Emit(a, layout[0], argument: argument);
            a.add(rsp, 8);
            a.ret();
            return arena.Emit(a, sites);
        }

        CodeBlock inResult = Emit(0x1234);
        CodeBlock elsewhere = Emit(new SiteArgument(0x1234) { Register = RegisterSet.Rdi });
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(0x1234, LiveCode.Call(inResult));
            Assert.Equal(0, LiveCode.Call(elsewhere));
            patcher.Bind([inResult, elsewhere]);
        }

        Assert.Equal((LiveForm.Island, LiveForm.OneInstruction), (inResult[0].Form, elsewhere[0].Form));
    }

    [Fact]
    public void A_target_behind_a_thunk_gets_the_argument_and_its_caller()
    {
        using var code = new EchoCode();
        VirtualAddress sum = code.Function(static a =>
        {
            a.mov(rax, rsi);
            a.sub(rax, rdi);
            a.xor(ecx, ecx);
        });
        Operation operation = Operation.Call(sum, "sum", RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Flags).PassingCaller(1);
        using LivePatcher patcher = code.Patcher(code.Direct.Derive("sum", b => b.Set("t.op", operation)));
        CodeBlock block = code.Emit(5, s_rdi | RegisterSet.Rsi);
        for (int i = 0; i < 2; i++)
        {
            VirtualAddress caller = (ulong)LiveCode.Call(block) + 5;
            Assert.Equal(block[0].End, caller);
            patcher.Bind(block);
        }

        Assert.Equal((PatchAction.ThunkCall, (VirtualAddress?)sum), (block[0].Action, block[0].Target));
    }

    /// <summary>An arena, functions with one site, and operations that give the argument back, or 7, or nothing.</summary>
    private sealed class EchoCode : IDisposable
    {
        public EchoCode(long size = 1 << 20, CallConvention? convention = null)
        {
            Layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op"), convention));
            Arena = CodeArena.Reserve(size: size);
            Echo = EmitEcho(Arena, 0).Address;
            EchoPlus = EmitEcho(Arena, 1).Address;
            Returner = Function(static a => a.mov(rax, __qword_ptr[rsp]));
            VirtualAddress greedy = Function(static a =>
            {
                a.mov(rax, rdi);
                a.xor(ecx, ecx);
            });
            Direct = Backend.Create("direct", Layout, b => b.Call("t.op", Echo, "echo", RegisterSet.Rax));
            Thunked = Backend.Create(
                "thunked", Layout, b => b.Call("t.op", greedy, "greedy", RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Flags));
            OneInstruction = Backend.Create("one", Layout, b => b.Inline("t.op", static a => a.mov(rax, rdi)));
            Identity = Backend.Create("identity", Layout, b => b.Identity64("t.op"));
            Several = Backend.Create("several", Layout, b => b.Inline("t.op", static a =>
            {
                a.lea(rax, __[rdi + 1]);
                a.lea(rax, __[rax - 1]);
            }));
            Sum = Backend.Create("sum", Layout, b => b.Inline("t.op", static a => a.lea(rax, __[rdi + rsi])));
            Constant = Backend.Create("constant", Layout, b => b.Inline("t.op", static a => a.mov(eax, 7)));
            Constants = Backend.Create("constants", Layout, b => b.Inline("t.op", static a =>
            {
                a.mov(eax, 3);
                a.lea(eax, __[rax + 4]);
            }));
            CallsDirectly = Calling("calls directly", a => a.call(Echo.Value));
            CallsIndirectly = Calling("calls indirectly", a =>
            {
                a.mov(rax, Echo.Value);
                a.call(rax);
            });
            Nops = Backend.Create("nops", Layout, b => b.Nop("t.op"));
            LeftAlone = Backend.Create(
                "left alone", Layout, b => b.Set("t.op", Operation.Call(Echo, destroys: RegisterSet.Rax).LeftAloneByBackend()));
        }

        public OpsLayout Layout { get; }

        public CodeArena Arena { get; }

        public SlotTable Slots => Arena.SlotsOf(Layout);

        public VirtualAddress Echo { get; }

        /// <summary>Gives one more.</summary>
        public VirtualAddress EchoPlus { get; }

        /// <summary>Gives its return address.</summary>
        public VirtualAddress Returner { get; }

        public Backend Direct { get; }

        public Backend Thunked { get; }

        public Backend OneInstruction { get; }

        public Backend Identity { get; }

        public Backend Several { get; }

        public Backend Sum { get; }

        public Backend Constant { get; }

        public Backend Constants { get; }

        /// <summary>A body of one instruction that names no register, and whose callee reads the argument.</summary>
        public Backend CallsDirectly { get; }

        public Backend CallsIndirectly { get; }

        public Backend Nops { get; }

        public Backend LeftAlone { get; }

        public ulong Expected(Backend backend, ulong value) =>
            backend == Nops ? 0 : backend == Constant || backend == Constants ? 7 : value;

        public LivePatcher Patcher(Backend backend)
        {
            var patcher = new LivePatcher(Arena, Layout);
            patcher.Switch(backend, LiveCode.Quiescent);
            return patcher;
        }

        /// <summary>ulong f(long rdi): rax = 0, one site, rax back.</summary>
        public CodeBlock Emit(SiteArgument argument, RegisterSet? clobbers, int budget = 6, int start = -1, bool forwarding = false)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(Layout);
            a.sub(rsp, 8);
            a.xor(eax, eax);
            sites.Emit(a, Layout[0], budget, clobbers, SitePlacement.None, SiteTraits.None, forwarding, start, argument);
            a.add(rsp, 8);
            a.ret();
            sites.EmitForwarding(a);
            return Arena.Emit(a, sites);
        }

        public CodeBlock EmitEcho(CodeArena arena, int add)
        {
            var a = new Assembler(64);
            a.lea(rax, __[rdi + add]);
            a.ret();
            return arena.Emit(a);
        }

        public void Dispose() => Arena.Dispose();

        private Backend Calling(string name, Action<Assembler> write) => Backend.Create(
            name, Layout, b => b.Set("t.op", Operation.Inline(InlineBody.Create(write, destroyedByCalls: RegisterSet.Rax))));

        public VirtualAddress Function(Action<Assembler> write)
        {
            var a = new Assembler(64);
            write(a);
            a.ret();
            return Arena.Emit(a).Address;
        }
    }
}
