using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Planning;

/// <summary>
/// A 32-bit nop family in 64-bit code moves esi to itself, which clears the upper half of rsi: refused wherever nops meet a bitness.
/// </summary>
public sealed class NopBitnessTests
{
    /// <summary>By a second reader: in 64-bit code, what a supported style writes changes no register.</summary>
    [Fact]
    public void Only_styles_that_write_nothing_but_nops_and_jumps_are_supported_in_64_bit_code()
    {
        foreach (NopStyle style in NopStyle.All)
        {
            bool changesRegisters = false;
            for (int length = 1; length <= style.Longest; length++)
            {
                byte[] bytes = new byte[length];
                style.Fill(bytes);
                changesRegisters |= CapstoneReader.Disassemble(bytes, 0, 64).Any(static i => i.Text[..3] is "mov" or "lea");
            }

            Assert.Equal(!changesRegisters, style.Supports(64));
            Assert.True(style.Supports(32));
        }
    }

    [Theory]
    [InlineData("intel")]
    [InlineData("k7")]
    [InlineData("x86_nops-6.1-32")]
    [InlineData("x86_nops-6.12-32")]
    public void A_32_bit_family_is_refused_in_64_bit_code(string name)
    {
        NopStyle style = NopStyle.All.Single(n => n.Name == name);
        var cases = new PlanCases(2);
        PatchDiagnostic found = Assert.Single(cases.Refused(Operation.Nop, new PlanOptions { Nops = style }));
        Assert.Equal((DiagnosticCodes.WrongNops, name), (found.Code, found.Found));
        PatchRules rules = PatchRules.Default with { Nops64 = style };
        Assert.Equal(DiagnosticCodes.WrongNops, Assert.Single(cases.Refused(Operation.Nop, new PlanOptions { Rules = rules })).Code);
        Assert.Throws<ArgumentException>(() => style.Fill(new byte[4], 64));
        Assert.Throws<ArgumentException>(() => new TemplateStore(64, style));
        Assert.True(BodyBuilder.TryBuild(InlineBody.FromBytes([0xfa]), CallConvention.SysV, 64, out AssembledBody? body, out _));
        Assert.Throws<ArgumentException>(() => CodeTemplate.Create(body, 6, style));
        Assert.Throws<ArgumentException>(() => body.InBudget(6, style));

        var narrow = new PlanCases(2, 32);
        Assert.Equal(2, narrow.Plan(Operation.Nop, new PlanOptions { Nops = style }).Count);
    }
}
