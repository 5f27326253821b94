using Iced.Intel;
using PvPatch.Analysis;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Analysis;

public sealed class FunctionEffectsTests
{
    private static readonly TestFacts s_compiled = new() { Convention = CallConvention.KernelSysV };

    [Fact]
    public void What_is_written_is_destroyed_whole_or_in_part()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.mov(cl, 1);
            a.mov(__word_ptr[0x300000], dx);
            a.bswap(r9d);
            a.pxor(xmm3, xmm4);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.Rcx | RegisterSet.R9 | RegisterSet.Vector, effects.Destroys);
        Assert.True(effects.Returns);
        Assert.True(effects.IsStackBalanced);
        Assert.False(effects.UsesRedZone);
        Assert.Null(effects.Undecided);
    }

    [Fact]
    public void What_is_saved_and_given_back_is_kept()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.push(rbx);
            a.pushfq();
            a.push(rbp);
            a.mov(rbp, rsp);
            a.sub(rsp, 0x20);
            a.mov(__[rbp - 8], r12);
            a.mov(r11, rdi);
            a.mov(ebx, 3);
            a.mov(edi, 4);
            a.xor(r12d, r12d);
            a.mov(r12, __[rbp - 8]);
            a.mov(rdi, r11);
            a.leave();
            a.popfq();
            a.pop(rbx);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.R11, effects.Destroys);
        Assert.True(effects.IsStackBalanced);
    }

    [Fact]
    public void A_word_half_overwritten_gives_nothing_back()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.push(rbx);
            a.push(rdi);
            a.mov(__byte_ptr[rsp + 8], 1);
            a.mov(__dword_ptr[rsp + 4], 1);
            a.pop(rdi);
            a.pop(rbx);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.Rbx | RegisterSet.Rdi, effects.Destroys);
    }

    [Fact]
    public void A_store_of_four_bytes_beside_a_word_leaves_it()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.push(rbx);
            a.sub(rsp, 8);
            a.mov(__dword_ptr[rsp + 4], 1);
            a.mov(ebx, 1);
            a.lea(rsp, __[rsp + 8]);
            a.pop(rbx);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.Flags, effects.Destroys);
    }

    [Fact]
    public void Both_ways_count()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            Label other = a.CreateLabel();
            Label end = a.CreateLabel();
            a.push(rsi);
            a.jrcxz(other);
            a.mov(edx, 1);
            a.mov(esi, 1);
            a.pop(rsi);
            a.jmp(end);
            a.Label(ref other);
            a.pop(r8);
            a.Label(ref end);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.Rdx | RegisterSet.R8, effects.Destroys); // on the one way rsi is given back, on the other it never changed
    }

    [Fact]
    public void Callees_count_and_recursion_ends()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            Label odd = a.CreateLabel();
            a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
            a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
            a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
            a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
            a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
            label.Here("even");
            Label done = a.CreateLabel();
            a.jrcxz(done);
            a.lea(rcx, __[rcx - 1]);
            a.call(odd);
            a.Label(ref done);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            a.Label(ref odd);
            a.lea(r8, __[rcx - 1]);
            a.call(label["even"]);
            a.ret();
        });
        FunctionEffects effects = code.Effects("even", s_compiled);
        Assert.Equal(RegisterSet.Rcx | RegisterSet.R8, effects.Destroys);
        Assert.Equal(RegisterSet.Rcx | RegisterSet.R8, code.Effects("even").Destroys);
    }

    [Fact]
    public void What_never_returns_destroys_nothing_at_a_return()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            Label go = a.CreateLabel();
            a.test(edi, edi);
            a.je(go);
            a.mov(ebx, 1);
            a.call(label["stop"]);
            for (int i = 0; i < 40; i++)
            {
                a.mov(edx, 1); // never reached
            }

            a.Label(ref go);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            label.Here("stop");
            a.mov(r9d, 1);
            a.jmp(label["stop"]);
        });
        Assert.Equal(RegisterSet.Flags, code.Effects().Destroys);
        FunctionEffects stop = code.Effects("stop");
        Assert.False(stop.Returns);
        Assert.Equal(RegisterSet.None, stop.Destroys);
    }

    [Fact]
    public void The_red_zone_is_seen()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.mov(__[rsp - 8], rbx);
            a.mov(ebx, 1);
            a.mov(rbx, __[rsp - 8]);
            a.ret();
        }).Effects();
        Assert.True(effects.UsesRedZone);
        Assert.Equal(RegisterSet.None, effects.Destroys);
    }

    [Fact]
    public void What_stands_below_the_stack_pointer_is_lost_at_a_call()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            Label f = a.CreateLabel();
            a.mov(__[rsp - 8], rbx);
            a.mov(ebx, 1);
            a.call(f);
            a.mov(rbx, __[rsp - 8]);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            a.Label(ref f);
            a.ret();
        });
        Assert.Equal(RegisterSet.Rbx, code.Effects(facts: s_compiled).Destroys);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_stack_that_is_not_given_back_is_seen(int how)
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            switch (how)
            {
                case 0: a.push(rax); a.ret(); break; // "returns" to what was in rax
                case 1: a.ret(8); break;
                case 2: a.mov(rsp, rdi); a.ret(); break;
                default: a.mov(__[rsp], rax); a.ret(); break;
            }
        }).Effects();
        Assert.True(!effects.IsStackBalanced);
        Assert.Equal(how == 1, effects.Undecided is null);
    }

    [Fact]
    public void A_frame_realigned_as_compilers_do_it_is_followed()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.lea(r10, __[rsp + 8]);
            a.and(rsp, -32);
            a.push(__qword_ptr[r10 - 8]);
            a.push(rbp);
            a.mov(rbp, rsp);
            a.push(r12);
            a.push(r10);
            a.sub(rsp, 0x40);
            a.xor(r12d, r12d);
            a.add(rsp, 0x40);
            a.pop(r10);
            a.pop(r12);
            a.pop(rbp);
            a.lea(rsp, __[r10 - 8]);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.R10 | RegisterSet.Flags, effects.Destroys);
        Assert.True(effects.IsStackBalanced);
    }

    [Fact]
    public void An_indirect_call_destroys_what_the_convention_says_or_everything()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            a.push(rcx);
            a.call(rax);
            a.pop(rcx);
            a.ret();
        });
        RegisterSet destroyed = CallConvention.KernelSysV.DestroyedBy(64);
        Assert.Equal(destroyed.Except(RegisterSet.Rcx), code.Effects(facts: s_compiled).Destroys);
        FunctionEffects nothingKnown = code.Effects();
        Assert.Equal(RegisterSet.All.Except(RegisterSet.Rsp), nothingKnown.Destroys);
        Assert.Equal("PV9001", nothingKnown.Undecided?.Code);
        var stated =
            new TestFacts { Calls = { [AnalysedCode.Start + 1] = new FunctionFacts { Destroys = RegisterSet.R8 | RegisterSet.Rcx } } };
        // nothing is believed of the word on the stack
        Assert.Equal(RegisterSet.R8 | RegisterSet.Rcx, code.Effects(facts: stated).Destroys);
    }

    [Fact]
    public void Without_a_convention_a_store_anywhere_may_hit_what_is_saved()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            a.push(rbx);
            a.mov(__[rdi], rax);
            a.mov(ebx, 1);
            a.pop(rbx);
            a.ret();
        });
        Assert.Equal(RegisterSet.Rbx, code.Effects().Destroys);
        Assert.Equal(RegisterSet.None, code.Effects(facts: s_compiled).Destroys);
    }

    [Fact]
    public void A_function_that_breaks_the_convention_is_named_and_its_callers_are_not_blamed()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            a.call(label["odd"]);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            label.Here("odd");
            a.mov(ebx, 1);
            a.ret();
        });
        var analyzer = new CodeAnalyzer(code.Image, s_compiled);
        Assert.Equal(RegisterSet.None, analyzer.EffectsOf(AnalysedCode.Start).Destroys);
        Assert.Equal(code["odd"], Assert.Single(analyzer.Unconventional).Address);
        Assert.Equal(RegisterSet.Rbx, code.Effects().Destroys);
    }

    [Fact]
    public void A_jump_to_a_known_function_is_a_call_without_a_return()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            a.push(rdi);
            a.pop(rdi);
            a.jmp(label["f"]);
            label.Here("f");
            a.mov(esi, 1);
            a.ret();
        });
        var facts = new TestFacts { Functions = { [code["f"].Value] = FunctionFacts.Plain } };
        Assert.Equal(RegisterSet.Rsi, code.Effects(facts: facts).Destroys);
        Assert.Equal(RegisterSet.Rsi, code.Effects().Destroys);
    }

    [Fact]
    public void A_symbol_that_lies_changes_nothing()
    {
        // "f" is the middle of a function that has pushed: its ret would return to what was pushed, if a call had led there.
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            a.push(rbx);
            a.mov(ebx, 1);
            a.jmp(label["f"]);
            label.Here("f");
            a.pop(rbx);
            a.ret();
        });
        var facts = new TestFacts { Functions = { [code["f"].Value] = FunctionFacts.Plain } };
        FunctionEffects effects = code.Effects(facts: facts);
        Assert.Equal(RegisterSet.None, effects.Destroys);
        Assert.True(effects.IsStackBalanced);
        Assert.False(code.Effects("f", facts).IsStackBalanced);
    }

    [Fact]
    public void Edges_replacements_and_traps_are_followed_as_stated()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            label.Here("site");
            a.nop(__dword_ptr[rax + rax * 1]);
            a.ret();
            label.Here("replacement");
            a.mov(r9d, 1);
            label.Here("other");
            a.mov(r10d, 1);
            a.ud2();
            a.mov(r11d, 1);
            a.ret();
        });
        ulong site = code["site"].Value;
        var facts = new TestFacts
        {
            Edges = { [site] = [code["replacement"]] },
            Next = { [code["replacement"].Value] = site + 4 },
            TrapsEnd = true,
        };
        Assert.Equal(RegisterSet.None, code.Effects().Destroys);
        Assert.Equal(RegisterSet.R9, code.Effects(facts: facts).Destroys);
        Assert.Equal(RegisterSet.R10 | RegisterSet.R11, code.Effects("other").Destroys);
        Assert.False(code.Effects("other", facts).Returns);
    }

    [Fact]
    public void Calls_into_themselves_that_fill_the_return_stack_are_pushes()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            for (int i = 0; i < 4; i++)
            {
                Label next = a.CreateLabel();
                a.call(next);
                a.int3();
                a.Label(ref next);
            }

            a.lea(rsp, __[rsp + 32]);
            a.ret();
        }).Effects();
        Assert.Equal(RegisterSet.None, effects.Destroys);
        Assert.True(effects.IsStackBalanced);
    }

    [Fact]
    public void An_iret_to_the_next_instruction_goes_on_there()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            Label next = a.CreateLabel();
            a.mov(eax, ss);
            a.push(rax);
            a.push(rsp);
            a.add(__qword_ptr[rsp], 8);
            a.pushfq();
            a.mov(eax, cs);
            a.push(rax);
            a.lea(rax, __[next]);
            a.push(rax);
            a.iretq();
            a.Label(ref next);
            a.mov(edx, 1);
            a.ret();
        }).Effects(facts: s_compiled);
        Assert.True(effects.Destroys.Contains(RegisterSet.Rdx | RegisterSet.Rax));
    }

    [Fact]
    public void Hypercalls_change_registers_that_no_description_names()
    {
        FunctionEffects effects = AnalysedCode.Of(a =>
        {
            a.vmcall();
            a.ret();
        }).Effects(facts: s_compiled);
        Assert.Equal(CallConvention.KernelSysV.DestroyedBy(64), effects.Destroys);
    }

    [Fact]
    public void Code_of_32_bits_is_followed_too()
    {
        FunctionEffects effects = AnalysedCode.Of(
            a =>
            {
                a.push(ebx);
                a.mov(__dword_ptr[esp - 4], edi);
                a.mov(ebx, 1);
                a.mov(ecx, 1);
                a.mov(edi, 1);
                a.mov(edi, __dword_ptr[esp - 4]);
                a.pop(ebx);
                a.ret();
            },
            bitness: 32).Effects();
        Assert.Equal(RegisterSet.Rcx, effects.Destroys);
    }
}
