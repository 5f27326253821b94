using Iced.Intel;
using PvPatch.Analysis;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Analysis;

public sealed class SiteLivenessTests
{
    private static readonly TestFacts s_compiled = new() { Convention = CallConvention.KernelSysV };

    [Fact]
    public void Read_before_written_is_live_written_before_read_is_dead()
    {
        SiteLiveness liveness = AnalysedCode.Of(a =>
        {
            a.mov(ecx, 1);
            a.mov(__dword_ptr[rdi + rcx * 4], edx);
            a.ret();
        }).Liveness(atReturn: RegisterSet.Rax);
        Assert.Equal(RegisterSet.Rdi | RegisterSet.Rdx | RegisterSet.Rsp, liveness.Live);
        Assert.Equal(RegisterSet.Rax, liveness.MayBeLive);
        Assert.True(liveness.Dead.Contains(RegisterSet.Rcx | RegisterSet.Rsi | RegisterSet.Flags));
    }

    [Fact]
    public void What_is_read_behind_a_call_of_code_nearby_is_live()
    {
        // The function begins within 32 bytes, where a call may as well fill the processor's stack of return addresses.
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            Label nearby = a.CreateLabel();
            a.call(nearby);
            a.and(r10, rcx);
            a.and(eax, -1);
            a.mov(edx, 2);
            a.ret();
            a.Label(ref nearby);
            a.and(rax, rsi);
            a.ret();
        });
        SiteLiveness liveness = code.Liveness(atReturn: RegisterSet.R10 | RegisterSet.Rax);
        Assert.False(liveness.Dead.Contains(RegisterSet.Rcx), "read behind the call alone");
        Assert.False(liveness.Dead.Contains(RegisterSet.Rsi), "for the sake of what is read behind the call");
        Assert.True(liveness.Dead.Contains(RegisterSet.Rdx | RegisterSet.Rbx));
        Assert.NotNull(liveness.FirstUse(RegisterSet.Rcx));
    }

    [Fact]
    public void What_is_read_behind_a_call_of_code_nearby_that_jumps_on_is_live()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            Label nearby = a.CreateLabel();
            Label known = a.CreateLabel();
            a.call(nearby);
            a.and(r10, rcx);
            a.ret();
            a.Label(ref nearby);
            a.jmp(known);
            a.nop();
            a.Label(ref known);
            a.ret();
        });
        ulong last = AnalysedCode.Start + (ulong)code.Bytes.Length - 1;
        var facts = new TestFacts { Convention = CallConvention.KernelSysV, Functions = { [last] = FunctionFacts.Plain } };
        SiteLiveness liveness = new CodeAnalyzer(code.Image, facts).LivenessAt(AnalysedCode.Start, RegisterSet.R10);
        Assert.False(liveness.Dead.Contains(RegisterSet.Rcx));
        Assert.True(liveness.Dead.Contains(RegisterSet.Rbx));
    }

    [Fact]
    public void A_byte_written_leaves_the_rest_that_nobody_reads()
    {
        SiteLiveness liveness = AnalysedCode.Of(a =>
        {
            a.mov(al, 1);
            a.@out(dx, al);
            a.ret();
        }).Liveness(atReturn: RegisterSet.None);
        Assert.Equal(RegisterSet.Rdx | RegisterSet.Rsp, liveness.Live);
        Assert.Equal(RegisterSet.None, liveness.MayBeLive);
    }

    [Fact]
    public void A_register_read_whole_after_its_low_byte_was_written_is_not_decided()
    {
        SiteLiveness liveness = AnalysedCode.Of(a =>
        {
            a.sete(dl);
            a.mov(__dword_ptr[rdi], edx);
            a.ret();
        }).Liveness(atReturn: RegisterSet.None);
        Assert.False(liveness.Live.Contains(RegisterSet.Rdx));
        Assert.Equal(RegisterSet.Rdx, liveness.MayBeLive);
    }

    [Fact]
    public void Only_what_is_wanted_of_a_result_is_wanted_of_its_sources()
    {
        SiteLiveness liveness = AnalysedCode.Of(a =>
        {
            a.sete(dl);
            a.mov(r12d, edx);
            a.and(r12d, 0xff);
            a.mov(__dword_ptr[rdi], r12d);
            a.lea(rsi, __[rsi + r8 * 2]); // nobody wants the sum
            a.or(r9, -1);
            a.sbb(r10, r10);
            a.and(r11, 0);
            a.mov(__[rdi], r9);
            a.mov(__[rdi], r10);
            a.mov(__[rdi], r11);
            a.ret();
        }).Liveness(atReturn: RegisterSet.None);

        // sete reads the zero flag; what sbb reads, the carry, is written by and before it.
        Assert.Equal(RegisterSet.Rdi | RegisterSet.Rsp | RegisterSet.Flags, liveness.Live);
        Assert.Equal(RegisterSet.None, liveness.MayBeLive);
    }

    [Fact]
    public void Flags_are_live_where_one_is_read()
    {
        AnalysedCode carry = AnalysedCode.Of(a =>
        {
            a.inc(eax); // leaves the carry
            a.adc(ecx, 0);
            a.mov(__dword_ptr[rdi], ecx);
            a.ret();
        });
        Assert.True(carry.Liveness(atReturn: RegisterSet.None).Live.Contains(RegisterSet.Flags));
        AnalysedCode shift = AnalysedCode.Of(a =>
        {
            a.shl(edx, cl); // leaves all flags where cl is 0
            a.setc(__byte_ptr[rdi]);
            a.ret();
        });
        Assert.True(shift.Liveness(atReturn: RegisterSet.None).Live.Contains(RegisterSet.Flags));
        AnalysedCode fixedShift = AnalysedCode.Of(a =>
        {
            a.shl(edx, 3);
            a.setc(__byte_ptr[rdi]);
            a.ret();
        });
        Assert.False(fixedShift.Liveness(atReturn: RegisterSet.None).Live.Contains(RegisterSet.Flags));
    }

    [Fact]
    public void What_a_called_function_reads_is_live_and_what_it_destroys_is_not()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            Label f = a.CreateLabel();
            a.call(f);
            a.mov(__[rsi], rcx);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            a.Label(ref f);
            a.mov(ecx, __dword_ptr[rdi]);
            a.ret();
        });
        Assert.Equal(
            RegisterSet.Rdi | RegisterSet.Rsi | RegisterSet.Rsp, code.Liveness(facts: s_compiled, atReturn: RegisterSet.None).Live);

        // Where no convention is known, a function that may destroy a register may also keep it.
        Assert.True(code.Liveness(atReturn: RegisterSet.None).Live.Contains(RegisterSet.Rcx));
    }

    [Fact]
    public void What_a_called_function_makes_its_result_of_is_live_where_the_result_is()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            a.call(label["f"]);
            label.Here("behind");
            a.mov(__[rsi], rax);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            label.Here("f");
            a.lea(rax, __[rdi + 1]);
            a.mov(rdx, r8);
            a.xor(edi, edi);
            a.ret();
        });
        Assert.Equal(
            RegisterSet.Rdi | RegisterSet.Rsi | RegisterSet.Rsp, code.Liveness(facts: s_compiled, atReturn: RegisterSet.None).Live);
        Assert.True(code.Liveness(atReturn: RegisterSet.None).Live.Contains(RegisterSet.Rdi | RegisterSet.R8));
    }

    [Fact]
    public void Unknown_code_and_returns_decide_nothing()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            a.call(__qword_ptr[rbx]);
            a.ret();
        });
        SiteLiveness compiled = code.Liveness(facts: s_compiled, atReturn: RegisterSet.Rax | RegisterSet.Rbp);
        Assert.Equal(RegisterSet.Rbx | RegisterSet.Rsp, compiled.Live);
        Assert.Equal(
            RegisterSet.Rax | RegisterSet.Rdi | RegisterSet.Rsi | RegisterSet.Rdx | RegisterSet.Rcx | RegisterSet.R8 | RegisterSet.R9 | RegisterSet.Rbp, compiled.MayBeLive);
        Assert.Equal(RegisterUseKind.UnknownCode, compiled.FirstUse(RegisterSet.Rdi)?.Kind);
        Assert.Equal(RegisterUseKind.Return, compiled.FirstUse(RegisterSet.Rbp)?.Kind);
        Assert.Equal(RegisterSet.None, code.Liveness().Dead);
    }

    [Fact]
    public void The_shortest_way_to_the_first_read_is_told()
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            a.test(edi, edi);
            label.Here("branch");
            a.je(label["on"]);
            a.mov(ecx, 1);
            a.jmp(label["end"]);
            label.Here("on");
            a.mov(eax, 2);
            label.Here("read");
            a.mov(__[rdi], rcx);
            label.Here("end");
            a.push(r8);
            a.pop(r9);
            a.ret();
        });
        SiteLiveness liveness = code.Liveness(atReturn: RegisterSet.None);
        RegisterUse use = Assert.IsType<RegisterUse>(liveness.FirstUse(RegisterSet.Rcx));
        Assert.Equal(RegisterUseKind.Instruction, use.Kind);
        Assert.Equal(code["read"], use.Address);
        Assert.Equal([AnalysedCode.Start, code["on"]], use.Path.Select(static r => r.Start));
        Assert.Equal([code["branch"], code["read"]], use.Path.Select(static r => r.Last));
        Assert.Equal(RegisterUseKind.Push, liveness.FirstUse(RegisterSet.R8)?.Kind);
        Assert.Null(liveness.FirstUse(RegisterSet.Rsi));
    }

    [Theory]
    [InlineData(null)]
    [InlineData(0)]
    [InlineData(2)]
    public void A_variadic_function_reads_what_its_format_says(int? count)
    {
        AnalysedCode code = AnalysedCode.Of((a, label) =>
        {
            Label print = a.CreateLabel();
            a.mov(rdi, 0x300000);
            a.call(print);
            a.ret();
            for (int i = 0; i < 40; i++)
            {
                a.int3();
            }

            a.Label(ref print);
            a.sub(rsp, 0x50);
            a.mov(__[rsp + 0x28], rsi);
            a.mov(__[rsp + 0x30], rdx);
            a.mov(__[rsp + 0x38], rcx);
            a.mov(__[rsp + 0x40], r8);
            a.mov(__[rsp + 0x48], r9);
            a.add(rsp, 0x50);
            a.ret();
        });
        SiteLiveness liveness = code.Liveness(
            facts: new TestFacts { Convention = CallConvention.KernelSysV, Variable = count }, atReturn: RegisterSet.None);
        RegisterSet all = RegisterSet.Rsi | RegisterSet.Rdx | RegisterSet.Rcx | RegisterSet.R8 | RegisterSet.R9;
        Assert.Equal(count is null ? all : RegisterSet.None, liveness.MayBeLive);
        Assert.Equal(count == 2 ? RegisterSet.Rsi | RegisterSet.Rdx : RegisterSet.None, liveness.Live.Except(RegisterSet.Rsp));
    }
}
