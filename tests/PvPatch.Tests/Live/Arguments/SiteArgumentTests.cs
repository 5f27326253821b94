using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Arguments;

/// <summary>What a site passes to its operation arrives in every form the site can take, whatever was there before.</summary>
public sealed unsafe class SiteArgumentTests
{
    [Fact]
    public void What_a_body_calls_may_read_the_argument()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Nops);
        CodeBlock block = code.Emit(0x1234, EchoCode.Allowed);
        foreach (Backend backend in (Backend[])[code.CallsDirectly, code.CallsIndirectly])
        {
            patcher.Switch(backend);
            Assert.Equal((0x1234L, LiveForm.Island), (LiveCode.Call(block), block[0].Form));
        }
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
                    ulong value = EchoCode.Values[random.Next(EchoCode.Values.Count)];
                    CodeBlock made = code.Emit(value, EchoCode.Allowed, random.Next(6, 16), random.Next(64), random.Next(2) == 0);
                    blocks.Add((made, value, false));
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
        CodeBlock[] blocks = [.. Enumerable.Range(0, 64).Select(i =>
            code.Emit(Value, EchoCode.Allowed, 6 + i % 10, i, forwarding: i % 3 == 0))];
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
    public void The_sites_own_address_arrives_with_and_without_a_value()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Sum);
        RegisterSet allowed = EchoCode.Allowed | RegisterSet.Rsi;
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
        CodeBlock block = code.Emit(5, EchoCode.Allowed | RegisterSet.Rsi);
        for (int i = 0; i < 2; i++)
        {
            VirtualAddress caller = (ulong)LiveCode.Call(block) + 5;
            Assert.Equal(block[0].End, caller);
            patcher.Bind(block);
        }

        Assert.Equal((PatchAction.ThunkCall, (VirtualAddress?)sum), (block[0].Action, block[0].Target));
    }
}
