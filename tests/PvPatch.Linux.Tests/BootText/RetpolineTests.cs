using PvPatch.Linux.BootText;
using PvPatch.Machine;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Sites of retpolines: what stands there is written as source, and its bytes are those of GNU as.</summary>
public sealed class RetpolineTests
{
    private const ulong Thunks = TextSample.Code;
    private const ulong CallThunks = TextSample.Code + 0x200;
    private const ulong JumpThunks = TextSample.Code + 0x400;
    private const ulong Site = TextSample.Code + 0x1000;
    private const ulong ItsInit = TextSample.Code + 0x3000;
    private const ulong ItsPage = 0xffffffffc0000000;

    // Other numbers than those of any kernel: they must come out of the image.
    private const int Retpoline = 300;
    private const int Lfence = 301;
    private const int Its = 302;

    private static readonly string[] s_registers = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

    [Theory]
    [InlineData("5.10", "call", "rax", "call *%rax; nopl (%rax)")]
    [InlineData("6.1", "call", "rdi", "call *%rdi; nopl (%rax)")]
    [InlineData("6.12", "call", "rdi", "call *%rdi; nopl (%rax)")]
    [InlineData("7.2", "call", "rdi", ".byte 0x2e,0x2e,0x2e; call *%rdi")]
    [InlineData("5.10", "call", "r11", "call *%r11; xchg %ax,%ax")]
    [InlineData("6.12", "call", "r11", "call *%r11; xchg %ax,%ax")]
    [InlineData("7.2", "call", "r11", ".byte 0x2e,0x2e; call *%r11")]
    [InlineData("6.12", "cs call", "r11", "call *%r11; nopl (%rax)")]
    [InlineData("7.2", "cs call", "r11", ".byte 0x2e,0x2e,0x2e; call *%r11")]
    [InlineData("5.10", "jmp", "rax", "jmp *%rax; nopl (%rax)")]
    [InlineData("6.1", "jmp", "rax", "jmp *%rax; int3; xchg %ax,%ax")]
    [InlineData("6.12", "jmp", "rbp", "jmp *%rbp; int3; xchg %ax,%ax")]
    [InlineData("7.2", "jmp", "rbp", "jmp *%rbp; int3; int3; int3")]
    [InlineData("6.12", "jmp", "r15", "jmp *%r15; int3; nop")]
    [InlineData("6.12", "cs jmp", "r15", "jmp *%r15; int3; xchg %ax,%ax")]
    [InlineData("5.10", "cs jmp", "r15", "jmp *%r15; nopl (%rax)")]
    [InlineData("7.2", "cs jmp", "r15", "jmp *%r15; int3; int3; int3")]
    [InlineData("6.12", "jne", "r11", "je . + 6; jmp *%r11; int3")]
    [InlineData("5.10", "jne", "rax", "je . + 6; jmp *%rax; xchg %ax,%ax")]
    public void Without_retpolines_the_branch_itself_stands_there(string rules, string branch, string register, string expected) =>
        Assert.Equal(TextSample.Assembled(expected, Site), Predict(Sample(branch, register), rules, branch));

    [Theory]
    [InlineData("5.10", "call", "rax", "lfence; call *%rax")]
    [InlineData("7.2", "call", "rax", "lfence; call *%rax")]
    [InlineData("6.12", "jmp", "rsi", "lfence; jmp *%rsi")]
    [InlineData("6.12", "cs call", "r9", "lfence; call *%r9")]
    [InlineData("7.2", "cs jmp", "r9", "lfence; jmp *%r9")]
    [InlineData("6.12", "cs call", "rbx", "lfence; call *%rbx; nop")]
    [InlineData("6.1", "cs jmp", "rbx", "lfence; jmp *%rbx; int3")]
    [InlineData("7.2", "cs call", "rbx", "lfence; .byte 0x2e; call *%rbx")]
    public void With_lfence_it_comes_first(string rules, string branch, string register, string expected)
    {
        TextSample sample = Sample(branch, register);
        sample.Features = [Retpoline, Lfence];
        Assert.Equal(TextSample.Assembled(expected, Site), Predict(sample, rules, branch));
    }

    [Theory]
    [InlineData("6.12", "call", "r11")]
    [InlineData("7.2", "jmp", "r8")]
    [InlineData("6.12", "jne", "rax")]
    public void What_has_no_room_for_lfence_stays(string rules, string branch, string register)
    {
        TextSample sample = Sample(branch, register);
        sample.Features = [Lfence];
        Assert.Equal(Original(branch, register), Predict(sample, rules, branch));
    }

    [Theory]
    [InlineData("call", "rax")]
    [InlineData("cs jmp", "r11")]
    [InlineData("jne", "rdx")]
    public void With_retpolines_a_site_stays(string branch, string register)
    {
        TextSample sample = Sample(branch, register);
        sample.Features = [Retpoline, MitigationFeatures.CallDepth]; // without a table of calls the number is another feature's
        Assert.Equal(Original(branch, register), Predict(sample, "6.12", branch));
    }

    [Theory]
    [InlineData("call", "rax", "call")]
    [InlineData("cs call", "r11", "call")]
    [InlineData("cs jmp", "r11", "jump")]
    [InlineData("jne", "rdx", "jump")]
    public void With_calls_counted_it_goes_to_the_thunk_that_counts(string branch, string register, string array)
    {
        TextSample sample = Sample(branch, register).Record(".call_sites", TextSample.Code + 0x2000);
        sample.Features = [Retpoline, MitigationFeatures.CallDepth];
        ulong thunk = (array == "call" ? CallThunks : JumpThunks) + (32 * (ulong)Array.IndexOf(s_registers, register));
        Assert.Equal(TextSample.Assembled($"{Source(branch)} thunk", Site, ("thunk", thunk)), Predict(sample, "6.12", branch));
    }

    // Bytes 0 and 1 of the site are a branch of a low register: its last byte is at 1.
    [Theory]
    [InlineData(0x00, "call", "rax", "thunk")]
    [InlineData(0x1e, "call", "rax", "thunk")]
    [InlineData(0x1f, "call", "rax", "inline")]
    [InlineData(0x3e, "call", "rax", "inline")]
    [InlineData(0x3f, "call", "rax", "thunk")]
    [InlineData(0x1e, "call", "r11", "inline")]
    [InlineData(0x1d, "cs call", "r11", "thunk")]
    [InlineData(0x3e, "cs jmp", "r11", "thunk")]
    public void With_ITS_a_branch_in_the_lower_half_of_a_line_goes_to_a_thunk_of_its_own(
        int at, string branch, string register, string becomes)
    {
        ulong site = Site + (ulong)at;
        TextSample sample = Sample(branch, register, site);
        sample.Features = [Its];
        sample.ItsPage = ItsPage;
        string expected = becomes == "thunk" ? $"{Source(branch)} thunk"
            : register == "rax" ? "call *%rax; nopl (%rax)" : "call *%r11; xchg %ax,%ax";
        Assert.Equal(TextSample.Assembled(expected, site, ("thunk", ItsPage + 0x20)),
            sample.Predict(Rules("6.12"), TextMechanism.Retpoline, site, Length(branch)));
    }

    // The same loop in another form: walk all bytes, and take the first place where the whole thunk is in an upper half.
    [Theory]
    [InlineData(0x1000)]
    [InlineData(0x2000)]
    public void ITS_thunks_fill_the_upper_halves_of_lines(int step)
    {
        var thunks = new ItsThunks(ItsPage, step);
        var random = TestSeed.NewRandom();
        ulong page = ItsPage;
        int at = 0;
        for (int i = 0; i < 5000; i++)
        {
            int register = random.Next(16);
            int size = register < 8 ? 3 : 4;
            while (at % 64 < 32 || (at + size - 1) / 64 != at / 64)
            {
                at++;
            }

            if (at + size > 0x1000)
            {
                page += (ulong)step;
                at = 32;
            }

            Assert.Equal(page + (ulong)at, thunks.Next(register).Value);
            at += size;
        }
    }

    [Fact]
    public void What_is_not_known_stays_open()
    {
        TextSample sample = Sample("call", "rax");
        sample.Features = null;
        Assert.Equal("open", Predict(sample, "6.12", "call"));

        sample = Sample("call", "rax");
        sample.Features = [Its]; // and no page
        Assert.Equal("open", Predict(sample, "6.12", "call"));

        // 5.10 chooses its nops by processor.
        sample = Sample("call", "rax");
        sample.Nops = null;
        Assert.Equal("open", Predict(sample, "5.10", "call"));
        Assert.NotEqual("open", Predict(sample, "6.1", "call"));
        sample = Sample("call", "r11");
        sample.Nops = null; // xchg %ax,%ax either way
        Assert.Equal(TextSample.Assembled("call *%r11; xchg %ax,%ax", Site), Predict(sample, "5.10", "call"));
        sample.Nops = NopStyle.K8;
        Assert.Equal(TextSample.Assembled("call *%r11; xchg %ax,%ax", Site), Predict(sample, "5.10", "call"));
        sample = Sample("call", "rax");
        sample.Nops = NopStyle.K8;
        Assert.Equal("ff d0 66 66 90", Predict(sample, "5.10", "call"));
    }

    [Theory]
    [InlineData("rsp")]
    [InlineData("none")]
    public void A_site_that_goes_elsewhere_is_refused(string register)
    {
        TextSample sample = Sample("call", "rax");
        sample.PutBranch(Site, register == "rsp" ? Thunks + 128 : Thunks + 16, 0xe8);
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux612, TextMechanism.Retpoline);
        Assert.Equal(KernelDiagnosticCodes.TextSiteUnexpected, Assert.Single(findings).Code);
        Assert.Equal(TextMechanism.None, text.OwnerAt(Site));
    }

    [Fact]
    public void A_site_outside_the_text_is_refused()
    {
        TextSample sample = Sample("call", "rax")
            .Record(".retpoline_sites", TextSample.Data, 0x1234, TextSample.Code + TextSample.CodeSize - 4);
        (_, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux612, TextMechanism.Retpoline);
        Assert.Equal(3, findings.Count(static f => f.Code == KernelDiagnosticCodes.TextRecordOutside));
    }

    private static TextSample Sample(string branch, string register, ulong site = Site)
    {
        var sample = new TextSample();
        ulong thunk = Thunks + (32 * (ulong)Array.IndexOf(s_registers, register));
        byte[] opcode = branch switch
        {
            "call" => [0xe8],
            "jmp" => [0xe9],
            "cs call" => [0x2e, 0xe8],
            "cs jmp" => [0x2e, 0xe9],
            _ => [0x0f, 0x85], // jne
        };
        sample.PutBranch(site, thunk, opcode).Record(".retpoline_sites", site);
        sample.Symbol("__x86_indirect_thunk_array", Thunks).Symbol("__x86_indirect_call_thunk_array", CallThunks)
            .Symbol("__x86_indirect_jump_thunk_array", JumpThunks).Symbol("its_init_mod", ItsInit).Symbol("next", ItsInit + 0x40);
        sample.Put(Thunks, [.. Enumerable.Repeat((byte)0x90, 32)]).Put(ItsInit, [.. Enumerable.Repeat((byte)0x90, 64)]);
        sample.Kernel
            .AddAlternative(Thunks, 17, Lfence, false, 0x0f, 0xae, 0xe8, 0xff, 0xe0, 0xcc)
            .AddAlternative(Thunks, 17, Retpoline, true, 0xff, 0xe0)
            .AddAlternative(ItsInit + 0x10, 5, FeatureWords.Always, false, 0xe9, 0, 0, 0, 0)
            .AddAlternative(ItsInit + 0x10, 5, Its, false)
            .AddAlternative(ItsInit + 0x40, 5, 303, false);
        return sample;
    }

    // GNU as drops a prefix before a call that has no use for it.
    private static string Source(string branch) => branch.Replace("cs ", ".byte 0x2e; ", StringComparison.Ordinal);

    private static TextRules Rules(string name) => name switch
    {
        "5.10" => TextRules.Linux510,
        "6.1" => TextRules.Linux61,
        "6.12" => TextRules.Linux612,
        _ => TextRules.Linux72,
    };

    private static int Length(string branch) => branch is "call" or "jmp" ? 5 : 6;

    private static string Predict(TextSample sample, string rules, string branch) =>
        sample.Predict(Rules(rules), TextMechanism.Retpoline, Site, Length(branch));

    private static string Original(string branch, string register) => TextSample.Assembled(
        $"{Source(branch)} thunk", Site, ("thunk", Thunks + (32 * (ulong)Array.IndexOf(s_registers, register))));
}
