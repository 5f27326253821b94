using Iced.Intel;
using PvPatch.Analysis;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Analysis;

/// <summary>Code that no compiler writes: nothing is proved of it that is not so, and the work ends.</summary>
public sealed class HostileCodeTests
{
    private static readonly RegisterSet s_everything = RegisterSet.All.Except(RegisterSet.Rsp);

    [Theory]
    [InlineData("06")] // no instruction in 64-bit code
    [InlineData("90")] // runs out of the image
    [InlineData("e9 00 00 00 40")] // jumps out of it
    [InlineData("ff e0")] // jumps anywhere
    [InlineData("e8 00 01 00 00 c3")] // calls what is not there
    [InlineData("48 b8 00 00")] // half an instruction
    public void Nothing_is_known_of_code_that_leads_nowhere(string bytes)
    {
        AnalysedCode code = AnalysedCode.OfBytes(Convert.FromHexString(bytes.Replace(" ", "", StringComparison.Ordinal)));
        FunctionEffects effects = code.Effects();
        Assert.Equal(s_everything, effects.Destroys);
        Assert.False(effects.IsStackBalanced);
        Assert.Equal(RegisterSet.None, code.Liveness().Dead);
    }

    [Fact]
    public void An_address_outside_the_image_is_no_code()
    {
        var analyzer = new CodeAnalyzer(new CodeImage(0x1000, new byte[16]));
        Assert.Equal("PV9001", analyzer.EffectsOf(0x5000).Undecided?.Code);
        Assert.Equal(RegisterSet.None, analyzer.LivenessAt(ulong.MaxValue).Dead);
        Assert.NotNull(analyzer.LivenessAt(0x5000).Undecided);
    }

    [Fact]
    public void A_jump_into_the_middle_of_an_instruction_is_followed_there()
    {
        // jmp +1; mov eax,0x90c301b3, whose constant is: mov bl,1; ret; nop
        byte[] bytes = [0xeb, 0x01, 0xb8, 0xb3, 0x01, 0xc3, 0x90, 0xc3];
        Assert.Equal(RegisterSet.Rbx, AnalysedCode.OfBytes(bytes).Effects().Destroys);
    }

    [Fact]
    public void Calls_a_thousand_deep_end()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            var functions = new Label[5000];
            for (int i = 0; i < functions.Length; i++)
            {
                functions[i] = a.CreateLabel();
            }

            for (int i = 0; i < functions.Length; i++)
            {
                a.Label(ref functions[i]);
                a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
                a.nop(__dword_ptr[rax + rax * 1 + 0x12345678]);
                if (i + 1 < functions.Length)
                {
                    a.call(functions[i + 1 < functions.Length - 2 ? i + 2 : functions.Length - 1]);
                }
                else
                {
                    a.mov(r13d, 1);
                }

                a.ret();
                for (int pad = 0; pad < 33; pad++)
                {
                    a.int3();
                }
            }
        });
        Assert.Equal(RegisterSet.R13, code.Effects().Destroys);
        Assert.NotEqual(RegisterSet.None, code.Liveness(facts: new TestFacts { Convention = CallConvention.KernelSysV }).Live);
    }

    [Fact]
    public void Work_beyond_what_is_allowed_is_given_up_and_everything_is_undecided()
    {
        AnalysedCode code = AnalysedCode.Of(a =>
        {
            for (int i = 0; i < 1000; i++)
            {
                a.nop();
            }

            a.ret();
        });
        var analyzer = new CodeAnalyzer(code.Image, work: 500);
        FunctionEffects effects = analyzer.EffectsOf(AnalysedCode.Start);
        Assert.Equal(s_everything, effects.Destroys);
        Assert.Equal("PV9002", effects.Undecided?.Code);
        Assert.Equal(RegisterSet.None, analyzer.LivenessAt(AnalysedCode.Start + 999).Dead);
        Assert.Equal("PV9002", analyzer.LivenessAt(AnalysedCode.Start + 990).Undecided?.Code);
        Assert.Equal(RegisterSet.None, new CodeAnalyzer(code.Image).EffectsOf(AnalysedCode.Start).Destroys);
    }

    [Theory]
    [InlineData(100)]
    [InlineData(300)]
    [InlineData(1000)]
    [InlineData(3000)]
    public void However_little_work_is_allowed_nothing_untrue_is_said(int work)
    {
        // The result with all the work it takes is the truth; with less, no less may be destroyed and no more be dead.
        AnalysedCode code = RandomFunctions.Create(new Random(TestSeed.Value ^ work));
        var whole = new CodeAnalyzer(code.Image);
        foreach (VirtualAddress function in code.Labels.Where(static l => l.Key[0] == 'f').Select(static l => (VirtualAddress)l.Value))
        {
            var little = new CodeAnalyzer(code.Image, work: work);
            Assert.True(little.EffectsOf(function).Destroys.Contains(whole.EffectsOf(function).Destroys));
            Assert.True(whole.LivenessAt(function).Dead.Contains(little.LivenessAt(function).Dead));
        }
    }

    [Fact]
    public void Random_bytes_end_in_bounded_work()
    {
        Random random = TestSeed.NewRandom();
        for (int round = 0; round < 30; round++)
        {
            byte[] bytes = new byte[4096];
            random.NextBytes(bytes);
            AnalysedCode code = AnalysedCode.OfBytes(bytes, round % 2 == 0 ? 64 : 32);
            var analyzer = new CodeAnalyzer(
                code.Image, round % 3 == 0 ? null : new TestFacts { Convention = CallConvention.SysV }, work: 2_000_000);
            for (int i = 0; i < 40; i++)
            {
                ulong at = AnalysedCode.Start + (ulong)random.Next(bytes.Length);
                _ = analyzer.EffectsOf(at);
                SiteLiveness liveness = analyzer.LivenessAt(at);
                for (int register = 0; register < 16; register++)
                {
                    RegisterSet one = RegisterSet.General(register);
                    Assert.Equal(liveness.Dead.Contains(one), liveness.FirstUse(one) is null);
                }
            }
        }
    }
}
