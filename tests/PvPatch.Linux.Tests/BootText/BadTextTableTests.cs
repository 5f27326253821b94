using PvPatch.Linux.BootText;
using PvPatch.Linux.Files;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Tables that lie: a finding with a place, no prediction, and nothing thrown.</summary>
public sealed class BadTextTableTests
{
    private const ulong Tables = 0xffffffff83300000;

    private const string Good = """
        .text
        _text: push %rbp
        label "xchg %ax, %ax", "nop", near, key, 0
        label "{disp8} nopl 0(%rax,%rax,1)", "nop", near, key, 0
        near: scall "call __SCT__one", "nop", __SCK__one, 0
        scall "{disp32} jmp __SCT__one", "nop", __SCK__one, 1
        trampoline one, "{disp32} jmp near", "nop"
        site "endbr64", "nop", .ibt_endbr_seal
        site "lock incl (%rdi)", "nop", .smp_locks
        site "call __fentry__", "nop", runtime_ptr_top
        __fentry__: ret
        .skip 32
        _etext:
        .data
        .balign 8
        key: .quad 0
        __SCK__one: .quad near, 0

        """;

    private static readonly (string Section, ulong Address)[] s_places =
    [
        ("__jump_table", Tables), (".static_call_sites", Tables + 0x1000), (".ibt_endbr_seal", Tables + 0x2000),
        (".smp_locks", Tables + 0x3000), ("runtime_ptr_top", Tables + 0x4000),
    ];

    [Fact]
    public void The_tables_are_good_before_they_are_damaged() => Assert.Empty(Predict(Good));

    [Theory]
    [InlineData("__jump_table", ".long 0x7ffffff0, 0\n.quad key - .")]
    [InlineData("__jump_table", ".long -0x7ffffff0, 0\n.quad key - .")]
    [InlineData("__jump_table", ".long _text - . - 1, 0\n.quad key - .")]
    [InlineData("__jump_table", ".long near - 7 - ., near - .\n.quad 0x7fffffffffffffff")]
    [InlineData("__jump_table", ".long near - 7 - ., near - .\n.quad _text - .")]
    [InlineData(".static_call_sites", ".long 0x7ffffff0, __SCK__one - .")]
    [InlineData(".static_call_sites", ".long near - ., _text - .")]
    [InlineData(".static_call_sites", ".long near - ., -0x7ffffff0")]
    [InlineData(".ibt_endbr_seal", ".long 0x7ffffff0")]
    [InlineData(".smp_locks", ".long 0x7ffffff0")]
    [InlineData(".smp_locks", ".long key - .")]
    [InlineData("runtime_ptr_top", ".long 0x7ffffff0")]
    public void A_record_that_names_a_place_outside_is_reported(string table, string record)
    {
        IReadOnlyList<PatchDiagnostic> findings = Predict($"{Good}\n.section {table}, \"a\"\n{record}\n");

        PatchDiagnostic finding = Assert.Single(findings);
        Assert.Equal((KernelDiagnosticCodes.TextRecordOutside, DiagnosticSeverity.Error), (finding.Code, finding.Severity));
        Assert.NotNull(finding.Address);
    }

    [Theory]
    [InlineData("__jump_table", ".long _text - ., near - .\n.quad key - .")]
    [InlineData(".static_call_sites", ".long _text - ., __SCK__one - .")]
    [InlineData(".ibt_endbr_seal", ".long _text - .")]
    public void A_site_that_holds_something_else_is_reported_with_its_bytes(string table, string record)
    {
        PatchDiagnostic finding = Assert.Single(Predict($"{Good}\n.section {table}, \"a\"\n{record}\n"));

        Assert.Equal(KernelDiagnosticCodes.TextSiteUnexpected, finding.Code);
        Assert.StartsWith("55 ", finding.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_short_jump_that_does_not_reach_is_reported()
    {
        string code = Good.Replace("\"xchg %ax, %ax\", \"nop\", near", "\"xchg %ax, %ax\", \"nop\", key", StringComparison.Ordinal);

        PatchDiagnostic finding = Assert.Single(Predict(code));

        Assert.Equal(KernelDiagnosticCodes.TextOutOfReach, finding.Code);
    }

    [Fact]
    public void A_table_is_found_between_its_symbols_and_not_where_they_lie()
    {
        const string Code = """
            .text
            _text: xchg %ax, %ax
            there: ret
            .section .rodata, "a"
            .quad 1
            __start___jump_table:
            .long _text - ., there - .
            .quad key - .
            __stop___jump_table:
            .quad 2
            .data
            .balign 8
            key: .quad 1

            """;
        (string, ulong)[] places = [(".rodata", Tables)];
        LinkedText good = LinkedText.Of(Code, TextRules.Linux61, places);
        TextTable table = good.Kernel.Table(TextTableKind.JumpLabels);
        Assert.Equal((16, Tables + 8), (table.Bytes.Length, table.Address.Value));

        string turned = Code.Replace("__start___", "x_", StringComparison.Ordinal)
            .Replace("__stop___", "__start___", StringComparison.Ordinal)
            .Replace("x_", "__stop___", StringComparison.Ordinal);
        Assert.True(LinkedText.Of(turned, TextRules.Linux61, places).Kernel.Table(TextTableKind.JumpLabels).Bytes.IsEmpty);

        string far = Code.Replace("__stop___jump_table:", ".set __stop___jump_table, key", StringComparison.Ordinal);
        TextKernel kernel = LinkedText.Of(far, TextRules.Linux61, (".rodata", 0xffffffff82800000)).Kernel;
        Assert.True(kernel.Table(TextTableKind.JumpLabels).Bytes.IsEmpty);
    }

    [Fact]
    public void Damaged_tables_are_followed_or_reported_and_nothing_is_thrown()
    {
        byte[] file = LinkedText.FileOf(Good, s_places);
        ElfImage image = ElfImage.Read(file);
        int[] offsets =
        [
            .. s_places.SelectMany(p => Assert.IsType<ElfSection>(image.Sections.First(s => s.Name == p.Section)) is { } section
                ? Enumerable.Range((int)section.FileOffset, (int)section.Size) : []),
        ];
        Random random = TestSeed.NewRandom();
        int refused = 0;
        for (int i = 0; i < 2000; i++)
        {
            byte[] damaged = [.. file];
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                damaged[offsets[random.Next(offsets.Length)]] = (byte)random.Next(256);
            }

            LinkedText linked = LinkedText.Of(damaged, TextRules.Linux612);
            refused += TextPredictor.TryPredict(linked.Kernel, StateOf(linked), out _, out IReadOnlyList<PatchDiagnostic> findings) ? 0 : 1;
            Assert.All(findings, static f => Assert.NotNull(f.Address));
        }

        Assert.InRange(refused, 500, 2000);
    }

    private static IReadOnlyList<PatchDiagnostic> Predict(string code)
    {
        LinkedText linked = LinkedText.Of(code, TextRules.Linux612, s_places);
        bool predicted = TextPredictor.TryPredict(
            linked.Kernel, StateOf(linked), out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings);
        Assert.Equal(findings.Count == 0, predicted);
        Assert.Equal(predicted, text is not null);
        return findings;
    }

    private static BootState StateOf(LinkedText linked) => new()
    {
        Keys = new Dictionary<VirtualAddress, int> { [linked.Symbol("key")] = 1 },
        StaticCalls = new Dictionary<VirtualAddress, VirtualAddress> { [linked.Symbol("__SCK__one")] = linked.Symbol("near") },
        IsUniprocessor = true,
        RuntimeConstants = new Dictionary<string, ulong> { ["top"] = 1 },
    };
}
