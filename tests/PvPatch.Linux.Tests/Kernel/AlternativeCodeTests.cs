using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Linux.Text;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// Replacements moved to their sites. The same source, linked by binutils where the replacement lies and where the site lies, gives
/// what is moved and what must come out.
/// </summary>
public sealed class AlternativeCodeTests
{
    private const ulong From = 0xffffffff83210000;
    private const ulong Site = 0xffffffff81001000;
    private const ulong Target = 0xffffffff81200000;

    [Theory]
    [InlineData("call target")]
    [InlineData("jmp target")]
    [InlineData("je target")]
    [InlineData("call *target(%rip)")]
    [InlineData("mov target(%rip), %rax")]
    [InlineData("cmpb $1, target(%rip)")]
    [InlineData("movl $0x11223344, target(%rip)")]
    [InlineData("lea target(%rip), %rdi\ncall target\njne target")]
    [InlineData("mov %rdi, %gs:target(%rip)\nsti")]
    [InlineData("1: jmp 1b")]
    [InlineData("jmp 1f\ncli\n1: sti")]
    [InlineData("jmp 1f\ncli\n1:")]
    [InlineData("cli\njmp 1f\n.skip 130, 0xfb\n1:")]
    [InlineData("mov 1f(%rip), %eax\n1: sti")]
    [InlineData("mov $target, %rax")]
    public void From_6_8_on_everything_that_leaves_the_replacement_is_moved(string source)
    {
        byte[] replacement = Assembled(source, From);
        byte[] expected = Assembled(source, Site);
        Assert.Equal(HexBytes.Format(expected), HexBytes.Format(Apply(AlternativeRules.Linux612, replacement, replacement.Length)));
    }

    [Theory]
    [InlineData("call target", true)]
    [InlineData("jmp target", true)]
    [InlineData("je target", false)]
    [InlineData("call *target(%rip)", false)]
    [InlineData("nop\ncall target", false)]
    public void To_6_7_only_a_replacement_that_is_one_call_or_jump_is_moved(string source, bool moved)
    {
        byte[] replacement = Assembled(source, From);
        byte[] expected = Assembled(source, moved ? Site : From);
        Assert.Equal(HexBytes.Format(expected), HexBytes.Format(Apply(AlternativeRules.Linux61, replacement, replacement.Length)));
    }

    // The short form counts from two bytes on, the long one from five; what is left is int3 there.
    [Theory]
    [InlineData(0x81, "eb 7f cc cc cc")]
    [InlineData(0x82, "e9 7d 00 00 00")]
    [InlineData(0x00, "eb fe cc cc cc")]
    [InlineData(-0x7e, "eb 80 cc cc cc")]
    [InlineData(-0x7f, "e9 7c ff ff ff")]
    public void From_6_8_on_jumps_are_made_short_in_both_directions(int distance, string expected)
    {
        int displacement = (int)(Site + (ulong)(long)distance - (From + 5));
        Assert.Equal(expected, HexBytes.Format(Apply(AlternativeRules.Linux612, [0xe9, .. BitConverter.GetBytes(displacement)], 5)));
    }

    [Theory]
    [InlineData("90", 2, "66 90")]
    [InlineData("90", 5, "0f 1f 44 00 00")]
    [InlineData("", 8, "0f 1f 84 00 00 00 00 00")]
    [InlineData("", 9, "2e 0f 1f 84 00 00 00 00 00")]
    [InlineData("", 11, "66 66 2e 0f 1f 84 00 00 00 00 00")]
    [InlineData("", 12, "eb 0a cc cc cc cc cc cc cc cc cc cc")]
    [InlineData("0f 1f 00", 4, "0f 1f 40 00")]
    [InlineData("0f 1f 44 00 00 66 90", 7, "0f 1f 80 00 00 00 00")]
    [InlineData("fa 0f 1f 00 fb 90 90", 7, "fa 0f 1f 00 fb 66 90")]
    [InlineData("f3 90 f3 90", 5, "f3 90 f3 90 90")]
    [InlineData("f3 90 90 90", 4, "f3 90 66 90")]
    [InlineData("b8 90 90 90 90", 6, "b8 90 90 90 90 90")]
    public void From_6_8_on_nops_of_any_form_become_one(string replacement, int length, string expected) =>
        Assert.Equal(expected, HexBytes.Format(Apply(AlternativeRules.Linux612, Bytes.FromHex(replacement), length)));

    [Theory]
    [InlineData("", 9, "0f 1f 84 00 00 00 00 00 90")]
    [InlineData("", 13, "0f 1f 84 00 00 00 00 00 0f 1f 44 00 00")]
    [InlineData("0f 1f 00", 4, "0f 1f 00 90")]
    [InlineData("66 90", 4, "66 90 66 90")]
    public void To_6_7_only_one_byte_nops_are_merged(string replacement, int length, string expected) =>
        Assert.Equal(expected, HexBytes.Format(Apply(AlternativeRules.Linux61, Bytes.FromHex(replacement), length)));

    [Theory]
    [InlineData("e8 ff ff ff 7f")]
    [InlineData("48 8b 05 ff ff ff 7f")]
    [InlineData("eb 7f")]
    public void What_the_site_cannot_reach_is_not_moved(string replacement)
    {
        byte[] bytes = Bytes.FromHex(replacement);
        Assert.False(new AlternativeCode(AlternativeRules.Linux612, 64).TryApply(bytes, From, Site, bytes.Length, out byte[]? code));
        Assert.Null(code);
    }

    [Fact]
    public void Any_bytes_at_any_place_give_bytes_or_a_refusal()
    {
        ulong[] places = [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, From, 0x7fffffffffffffff, 0xffffffffffffffff, 0xfffffffffffffff0];
        var random = TestSeed.NewRandom();
        int refused = 0;
        const int Count = 40_000;
        for (int i = 0; i < Count; i++)
        {
            byte[] replacement = new byte[random.Next(24)];
            random.NextBytes(replacement);
            if (replacement.Length > 0 && random.Next(2) == 0)
            {
                replacement[random.Next(replacement.Length)] = (byte)(random.Next(3) switch { 0 => 0x90, 1 => 0xe8, _ => 0xe9 });
            }

            int length = Math.Max(1, replacement.Length + random.Next(200));
            AlternativeRules rules = i % 2 == 0 ? AlternativeRules.Linux61 : AlternativeRules.Linux612;
            bool applied = new AlternativeCode(rules, random.Next(2) == 0 ? 32 : 64).TryApply(
                replacement, places[random.Next(places.Length)], places[random.Next(places.Length)], length, out byte[]? code);
            Assert.Equal(applied ? length : null, code?.Length);
            refused += applied ? 0 : 1;
        }

        Assert.InRange(refused, 1, Count / 2);
    }

    private static byte[] Apply(AlternativeRules rules, byte[] replacement, int length)
    {
        Assert.True(new AlternativeCode(rules, 64).TryApply(replacement, From, Site, length, out byte[]? code));
        return code;
    }

    private static byte[] Assembled(string source, ulong address)
    {
        ElfImage elf = ElfImage.Read(Tools.AssembleAndLink(
            $".section .other, \"ax\"\ntarget: ret\n.text\n{source}\n", 64, (".text", address), (".other", Target)));
        Assert.True(elf.TryGetSection(".text", out ElfSection? text));
        return elf.GetBytes(text).ToArray();
    }
}
