using Iced.Intel;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using PvPatch.Tests.Planning;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Encoding;

/// <summary>
/// Targets that Iced's assembler would take for labels: 0 stands for every instruction without a label, small numbers for labels. The
/// expected bytes are what GNU as writes for <c>.org</c>-placed code: opcode, then target minus the address behind the instruction.
/// </summary>
public sealed class AddressTargetTests
{
    [Theory]
    [InlineData(64, 0)]
    [InlineData(64, 1)]
    [InlineData(64, 2)]
    [InlineData(64, 0x1000)]
    [InlineData(32, 0)]
    [InlineData(32, 1)]
    [InlineData(32, 0xffff_ffff)]
    public void A_call_site_calls_its_target_whatever_its_value(int bitness, ulong target)
    {
        var cases = new PlanCases(3, bitness);
        cases.Plan(Operation.Call(target)).Apply(cases.Image);
        for (int i = 0; i < 3; i++)
        {
            AssertRel32(0xe8, cases.Code.AsSpan(i * 8, 5), PlanCases.Start + (ulong)(i * 8), target);
        }
    }

    [Theory]
    [InlineData(64, 0)]
    [InlineData(32, 0)]
    [InlineData(32, 3)]
    public void A_jump_site_jumps_to_its_target_whatever_its_value(int bitness, ulong target)
    {
        var cases = new PlanCases(1, bitness);
        cases.Plan(Operation.Jump(target)).Apply(cases.Image);
        AssertRel32(0xe9, cases.Code.AsSpan(0, 5), PlanCases.Start, target);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_BUG_function_at_a_small_address_is_called_there(ulong bug)
    {
        var cases = new PlanCases(1);
        PatchRules rules = LinuxRules.All.First(static r => r.MissingCallsBug);
        cases.Plan(Operation.Missing, new PlanOptions { Rules = rules, BugTarget = bug }).Apply(cases.Image);
        AssertRel32(0xe8, cases.Code.AsSpan(0, 5), PlanCases.Start, bug);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_thunk_calls_its_target_whatever_its_value(ulong target)
    {
        var cases = new PlanCases(1, clobbers: RegisterSet.Rax);
        PatchPlan plan = cases.Plan(Operation.Call(target, destroys: RegisterSet.Rax | RegisterSet.Rcx),
            new PlanOptions { Thunks = new AddressRange(PlanCases.Start + 8, 64) });
        SiteDecision thunk = Assert.Single(Enumerable.Range(0, plan.Count).Select(i => plan[i]), static s => s.Action == PatchAction.Thunk);
        byte[] code = thunk.NewBytes.ToArray();
        var decoder = Decoder.Create(64, code, thunk.Address.Value);
        var calls = decoder.Where(static i => i.Mnemonic == Mnemonic.Call).ToList();
        Assert.Equal(target, Assert.Single(calls).NearBranchTarget);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)] // the number of the label
    [InlineData(2)]
    [InlineData(9)]
    public void In_a_body_labels_and_addresses_are_told_apart(ulong target)
    {
        InlineBody body = InlineBody.Create(a =>
        {
            Label over = a.CreateLabel();
            a.test(eax, eax);
            a.je(over);
            a.call(target);
            a.Label(ref over);
            a.mov(rax, __[target + 8]); // absolute, not relative: stays as it is
            a.AddInstruction(Instruction.Create(Code.Lea_r64_m, Register.RCX, new MemoryOperand(Register.RIP, (long)target, 8)));
        });
        Assert.True(
            BodyBuilder.TryBuild(body, CallConvention.SysV, 64, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        byte[] code = new byte[built.Bytes.Length];
        Assert.True(CodeTemplate.Create(built, code.Length, NopStyle.P6).TryWrite(0x7000_0000, code));
        Instruction[] decoded = [.. Decoder.Create(64, code, 0x7000_0000)];
        Assert.Equal(decoded[3].IP, decoded[1].NearBranchTarget);
        Assert.Equal(target, decoded[2].NearBranchTarget);
        Assert.Equal(target, decoded[4].IPRelativeMemoryAddress);
        Assert.Equal(0x74, code[2]); // je rel8
    }

    /// <summary>
    /// A body is assembled near the first address it refers to. Where another lies where the body would have been put, it is neither taken
    /// for one of the body's own instructions nor reached by a short branch. As one branch is long, all are.
    /// </summary>
    [Theory]
    [InlineData(64, 0x4000_0000)]
    [InlineData(64, 0xffff_ffff_8100_0000)]
    [InlineData(32, 0x4000_0000)]
    [InlineData(32, 0xc100_0000)]
    public void A_body_refers_to_several_addresses_however_they_lie_to_each_other(int bitness, ulong first)
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        var random = new Random(seed);
        CallConvention convention = bitness == 64 ? CallConvention.SysV : CallConvention.I386RegParm;
        // Every address in and around the places 64 KiB to both sides, and some anywhere.
        IEnumerable<long> distances = Enumerable.Range(-200, 400).SelectMany(static i => (long[])[0x1_0000 + i, -0x1_0000 + i])
            .Concat(Enumerable.Range(0, 200).Select(_ => random.NextInt64(-0x4_0000, 0x4_0000)));
        foreach (long distance in distances)
        {
            ulong second = first + (ulong)distance;
            ulong third = second + (ulong)random.NextInt64(-0x2_0000, 0x2_0000);
            InlineBody body = InlineBody.Create(a =>
            {
                Label over = a.CreateLabel();
                a.je(over);
                a.call(first);
                a.jne(second);
                a.Label(ref over);
                a.jmp(third);
            });
            Assert.True(
                BodyBuilder.TryBuild(body, convention, bitness, out AssembledBody? built, out PatchDiagnostic? error),
                $"{distance:x}: {error}");
            Assert.Equal([first, second, third], built.Fixups.Select(static f => f.Target.Value));
            Assert.Equal("0f 84 0b 00 00 00 e8 00 00 00 00 0f 85 00 00 00 00 e9 00 00 00 00", HexBytes.Format(built.Bytes.Span));
        }
    }

    /// <summary>More addresses than one, each where the body would go next: all of them are avoided.</summary>
    [Fact]
    public void Addresses_that_follow_each_other_at_the_distance_of_the_places_are_all_avoided()
    {
        ulong[] targets = [.. Enumerable.Range(0, 50).Select(static i => 0x4000_0000UL + ((ulong)i * 0x1_0000))];
        InlineBody body = InlineBody.Create(a =>
        {
            foreach (ulong target in targets)
            {
                a.call(target);
            }
        });
        Assert.True(
            BodyBuilder.TryBuild(body, CallConvention.SysV, 64, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(targets, built.Fixups.Select(static f => f.Target.Value));
    }

    [Fact]
    public void A_jump_back_to_the_first_instruction_of_a_body_is_no_jump_to_address_0()
    {
        InlineBody spin = InlineBody.Create(static a =>
        {
            Label again = a.CreateLabel();
            a.Label(ref again);
            a.pause();
            a.jmp(again);
        });
        Assert.True(BodyBuilder.TryBuild(spin, CallConvention.SysV, 64, out AssembledBody? built, out _));
        Assert.Equal("f3 90 eb fc", HexBytes.Format(built.Bytes.Span)); // pause; jmp $-2
        InlineBody toZero = InlineBody.Create(static a => a.jmp(0));
        Assert.True(BodyBuilder.TryBuild(toZero, CallConvention.SysV, 64, out built, out _));
        Assert.Equal(new VirtualAddress(0), Assert.Single(built.Fixups).Target);
    }

    [Fact]
    public void A_label_that_is_nowhere_is_refused()
    {
        InlineBody body = InlineBody.Create(static a =>
        {
            Label nowhere = a.CreateLabel();
            a.jmp(nowhere);
        });
        Assert.False(BodyBuilder.TryBuild(body, CallConvention.SysV, 64, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
        Assert.Contains("label", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_label_or_prefix_behind_the_last_instruction_is_refused()
    {
        InlineBody label = InlineBody.Create(static a =>
        {
            Label end = a.CreateLabel();
            a.je(end);
            a.Label(ref end);
        });
        Assert.False(BodyBuilder.TryBuild(label, CallConvention.SysV, 64, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
        InlineBody prefix = InlineBody.Create(static a =>
        {
            a.nop();
            _ = a.@lock;
        });
        Assert.False(BodyBuilder.TryBuild(prefix, CallConvention.SysV, 64, out _, out error));
        Assert.Equal(DiagnosticCodes.BodyInvalid, error.Code);
    }

    [Theory]
    [InlineData(64, 0)]
    [InlineData(64, 3)] // the number of the next label
    [InlineData(64, 0xfffe)]
    [InlineData(64, 0xffff)]
    [InlineData(64, 0x1_0000)]
    [InlineData(64, 0x1_0001)]
    [InlineData(64, 0x00ff_ffff)]
    [InlineData(64, 0x0100_0000)]
    [InlineData(64, 0x8000_0000_0000_0000)]
    [InlineData(64, 0xffff_ffff_fffd_fffe)]
    [InlineData(64, 0xffff_ffff_fffd_ffff)]
    [InlineData(64, 0xffff_ffff_fffe_0000)]
    [InlineData(64, 0xffff_ffff_ffff_0000)]
    [InlineData(64, 0xffff_ffff_ffff_ffff)]
    [InlineData(32, 0)]
    [InlineData(32, 3)]
    [InlineData(32, 0xffff)]
    [InlineData(32, 0x1_0000)]
    [InlineData(32, 0x7fff_ffff)]
    [InlineData(32, 0xfffd_fffe)]
    [InlineData(32, 0xfffd_ffff)]
    [InlineData(32, 0xfffe_0000)]
    [InlineData(32, 0xffff_ffff)]
    public void A_body_with_two_labels_refers_to_any_address_and_another_beside_it(int bitness, ulong target)
    {
        ulong mask = bitness == 32 ? uint.MaxValue : ulong.MaxValue;
        ulong other = unchecked(target + 0x1234) & mask;
        InlineBody body = InlineBody.Create(a =>
        {
            Label over = a.CreateLabel();
            Label end = a.CreateLabel();
            a.je(over);
            a.call(target);
            a.Label(ref over);
            a.jne(end);
            a.call(other);
            a.Label(ref end);
            a.nop();
        });
        CallConvention convention = bitness == 64 ? CallConvention.SysV : CallConvention.I386RegParm;
        Assert.True(
            BodyBuilder.TryBuild(body, convention, bitness, out AssembledBody? built, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal([target, other], built.Fixups.Select(static f => f.Target.Value));
        Assert.Equal("74 05 e8 00 00 00 00 75 05 e8 00 00 00 00 90", HexBytes.Format(built.Bytes.Span));
        byte[] code = new byte[built.Bytes.Length];
        ulong place = unchecked(target + 0x5_0000) & mask;
        Assert.True(CodeTemplate.Create(built, code.Length, NopStyle.P6).TryWrite(place, code));
        Assert.Equal(unchecked((int)(uint)(target - (place + 7))), BitConverter.ToInt32(code, 3));
        Assert.Equal(unchecked((int)(uint)(other - (place + 14))), BitConverter.ToInt32(code, 10));
    }

    [Theory]
    [InlineData(false, "not written the same each time")]
    [InlineData(true, "behind the last instruction")]
    public void A_body_that_is_written_otherwise_the_second_time_is_refused(bool dangles, string why)
    {
        // Written twice because 1 could be the label.
        int times = 0;
        InlineBody body = InlineBody.Create(a =>
        {
            Label over = a.CreateLabel();
            a.je(over);
            a.call(1);
            a.Label(ref over);
            a.nop();
            if (++times == 2)
            {
                _ = dangles ? a.@lock : null;
                if (!dangles)
                {
                    a.nop();
                }
            }
        });
        Assert.False(BodyBuilder.TryBuild(body, CallConvention.SysV, 64, out _, out PatchDiagnostic? error));
        Assert.Equal((DiagnosticCodes.BodyInvalid, 2), (error.Code, times));
        Assert.Contains(why, error.Message, StringComparison.Ordinal);
    }

    private static void AssertRel32(byte opcode, ReadOnlySpan<byte> code, ulong address, ulong target)
    {
        Assert.Equal(opcode, code[0]);
        Assert.Equal(unchecked((int)(uint)(target - (address + 5))), BitConverter.ToInt32(code[1..]));
    }
}
