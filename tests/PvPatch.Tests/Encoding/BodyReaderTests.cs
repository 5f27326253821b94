using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Encoding;

/// <summary>What is found out about a body, where a decoder's description of its instructions is not the whole truth.</summary>
public sealed class BodyReaderTests
{
    private static readonly CallConvention s_callee = CallConvention.CalleeSave; // destroys rax and flags

    [Theory]
    [InlineData("0f 05", "rax,rcx,r11,flags")] // syscall: the result too
    [InlineData("0f 01 c1", "rax,flags")] // vmcall
    [InlineData("0f 01 d9", "rax,flags")] // vmmcall
    [InlineData("cd 80", "rax,flags")] // int 0x80
    [InlineData("ff 13", "rax,flags")] // call [rbx]
    [InlineData("cc", "-")] // int3: a debugger gives everything back
    [InlineData("0f 77", "vector")] // emms
    [InlineData("0f ae 10", "vector")] // ldmxcsr [rax]
    [InlineData("0f ae 08", "vector")] // fxrstor [rax]
    [InlineData("0f ae 28", "vector")] // xrstor [rax]
    [InlineData("d9 c0", "vector")] // fld st0
    [InlineData("f3 0f 10 c1", "vector")] // movss xmm0,xmm1
    [InlineData("c9", "rsp,rbp")] // leave
    [InlineData("50 5c", "rsp")] // push rax; pop rsp
    [InlineData("48 83 c4 08", "rsp,flags")] // add rsp,8
    [InlineData("48 8d 64 24 08", "rsp")] // lea rsp,[rsp+8]
    [InlineData("88 e0", "rax")] // mov al,ah
    [InlineData("48 0f 44 d8", "rbx")] // cmovz rbx,rax
    [InlineData("48 87 d9", "rcx,rbx")] // xchg rcx,rbx
    [InlineData("f3 a4", "rcx,rsi,rdi")] // rep movsb
    [InlineData("0f a2", "rax,rcx,rdx,rbx")] // cpuid
    [InlineData("0f c7 0f", "rax,rdx,flags")] // cmpxchg8b [rdi]
    [InlineData("fa", "-")] // cli: IF is not among the flags
    [InlineData("fc", "flags")] // cld
    [InlineData("0f 01 ca", "flags")] // clac
    [InlineData("c6 07 00", "-")] // mov byte [rdi],0
    public void A_body_destroys_what_its_instructions_change(string bytes, string registers)
    {
        AssembledBody body = Build(bytes);
        Assert.Equal(Set(registers), body.Destroys);
        Assert.False(body.EndsControlFlow);
    }

    [Fact]
    public void What_calls_destroy_can_be_said_to_be_less()
    {
        Assert.True(HexBytes.TryParse("0f 01 c1", out byte[]? vmcall));
        Assert.True(BodyBuilder.TryBuild(
            InlineBody.FromBytes(vmcall, default, RegisterSet.Rax), CallConvention.SysV, 64, out AssembledBody? body, out _));
        Assert.Equal(RegisterSet.Rax | RegisterSet.Flags, body.Destroys); // vmcall itself changes the flags
    }

    [Theory]
    [InlineData("50 58", true)] // push rax; pop rax
    [InlineData("48 8b 04 24", true)] // mov rax,[rsp]
    [InlineData("48 8b 04 24 48 8b 4c 24 08", true)] // mov rax,[rsp]; mov rcx,[rsp+8]: twice is not none
    [InlineData("48 89 e0", false)] // mov rax,rsp
    [InlineData("48 8d 44 24 08", false)] // lea rax,[rsp+8]
    [InlineData("ff 13", true)] // call [rbx]
    [InlineData("fa", false)]
    public void A_body_uses_the_stack_where_it_touches_its_memory(string bytes, bool uses) => Assert.Equal(uses, Build(bytes).UsesStack);

    [Fact]
    public void A_branch_over_the_last_jump_reaches_the_end()
    {
        // mov ecx,1; test eax,eax; jz +5; jmp far away
        AssembledBody body = Build("b9 01 00 00 00 85 c0 74 05 e9 00 00 01 00");
        Assert.False(body.EndsControlFlow);
        Assert.Equal(Set("rcx,flags"), body.Destroys);
    }

    [Theory]
    [InlineData("c3")]
    [InlineData("c3 cc")] // with int3 against straight-line speculation
    [InlineData("eb fe")] // jmp to itself
    [InlineData("85 c0 74 01 c3 c3")] // both ways return
    public void A_body_without_a_way_to_its_end_destroys_nothing_the_site_would_see(string bytes)
    {
        AssembledBody body = Build(bytes);
        Assert.True(body.EndsControlFlow);
        Assert.Equal(RegisterSet.None, body.Destroys);
    }

    [Theory]
    [InlineData("50", "moved by -8")] // push rax
    [InlineData("58", "moved by 8")] // pop rax
    [InlineData("85 c0 74 01 50 90", "moved differently")] // test eax,eax; jz +1; push rax; nop
    [InlineData("50 85 c0 74 01 58", "moved")] // push rax; test; jz over the pop
    [InlineData("eb 01 b8 00 00 00 00 90", "middle of an instruction")]
    [InlineData("75 7f", "field of 1 bytes")] // jnz rel8 out of the body
    [InlineData("50 eb fd", "moved differently")] // push rax; jmp to the push: the stack never ends
    [InlineData("90 eb 01 b8 00 00 00 00 90", "a branch at +1 leads into the middle")]
    [InlineData("06", "bytes at +0 are no instruction")] // push es is none in 64-bit code
    [InlineData("90 90 06", "bytes at +2 are no instruction")]
    [InlineData("90 eb 7f", "jmp at +1 leaves the body with a field of 1 bytes")]
    [InlineData("b8 00", "no instruction")] // cut off
    public void A_body_that_cannot_stand_at_a_site_is_refused(string bytes, string why)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? code));
        Assert.False(BodyBuilder.TryBuild(InlineBody.FromBytes(code, 0x1000), s_callee, 64, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
        Assert.Contains(why, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(64, 0xfffffffffffffffe)]
    [InlineData(32, 0xfffffffe)]
    [InlineData(32, 0x100000000)]
    public void An_origin_at_the_end_of_the_address_space_is_refused(int bitness, ulong origin)
    {
        InlineBody body = InlineBody.FromBytes([0xb8, 1, 0, 0, 0], origin);
        Assert.False(BodyBuilder.TryBuild(body, s_callee, bitness, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
    }

    [Theory]
    [InlineData(64, 0xfffffffffffffffa)]
    [InlineData(32, 0xfffffffa)]
    public void A_body_may_end_before_the_last_byte_of_the_address_space(int bitness, ulong origin)
    {
        InlineBody body = InlineBody.FromBytes([0xb8, 1, 0, 0, 0], origin);
        Assert.True(BodyBuilder.TryBuild(body, s_callee, bitness, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal([0xb8, 1, 0, 0, 0], built.Bytes.ToArray());
    }

    [Theory]
    [InlineData("ff 13", true)] // call [rbx]
    [InlineData("ff 23", true)] // jmp [rbx]
    [InlineData("e8 00 00 10 00", false)] // call rel32
    [InlineData("48 8b 03", false)] // mov rax,[rbx]
    public void A_body_has_an_indirect_branch_where_it_calls_or_jumps_through_memory(string bytes, bool has) =>
        Assert.Equal(has, Build(bytes).HasIndirectBranch);

    [Fact]
    public void A_body_without_bytes_is_refused_but_the_one_that_stands_for_nothing()
    {
        Assert.False(BodyBuilder.TryBuild(InlineBody.Create(static _ => { }), s_callee, 64, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
        Assert.Throws<ArgumentException>(() => InlineBody.FromBytes([]));
        Assert.True(BodyBuilder.TryBuild(InlineBody.Nothing, s_callee, 64, out AssembledBody? nothing, out _));
        Assert.True(nothing.Bytes.IsEmpty && nothing.Destroys.IsEmpty && !nothing.UsesStack && !nothing.EndsControlFlow);
    }

    [Fact]
    public void A_body_longer_than_any_site_is_refused()
    {
        InlineBody body = InlineBody.Create(static a =>
        {
            for (int i = 0; i < 255; i++)
            {
                a.nop();
            }
        });
        Assert.False(BodyBuilder.TryBuild(body, s_callee, 64, out _, out PatchDiagnostic? error));
        Assert.Contains("255 bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Labels_stay_short_and_outside_targets_become_fixups()
    {
        InlineBody body = InlineBody.Create(static a =>
        {
            Label skip = a.CreateLabel();
            a.test(al, al);
            a.je(skip);
            a.call(0x40_0000);
            a.Label(ref skip);
            a.AddInstruction(Instruction.Create(Code.Lea_r64_m, Register.RCX, new MemoryOperand(Register.RIP, 0x40_2000)));
        });
        Assert.True(BodyBuilder.TryBuild(body, s_callee, 64, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        CodeFixup call = built.Fixups[0];
        Assert.Equal(0x40_0000UL, call.Target.Value);
        Assert.Contains(built.Fixups, f => f.Target == 0x40_2000UL);
        Assert.Equal(0x74, built.Bytes.Span[2]); // je rel8
    }

    private static RegisterSet Set(string text) => RegisterSet.TryParse(text, out RegisterSet set) ? set : throw new FormatException(text);

    private static AssembledBody Build(string bytes)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? code));
        InlineBody body = InlineBody.FromBytes(code, 0x1000);
        Assert.True(BodyBuilder.TryBuild(body, s_callee, 64, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        return built;
    }
}
