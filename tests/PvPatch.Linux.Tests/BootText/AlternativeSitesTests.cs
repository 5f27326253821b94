using System.Buffers.Binary;
using System.Globalization;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Alternatives in general: which of the records of an address counts, and over what.</summary>
public sealed class AlternativeSitesTests
{
    private const ulong Site = TextSample.Code + 0x1000;
    private const int On = 70;
    private const int AlsoOn = 71;
    private const int Off = 72;

    // old: the site's bytes in the file; records: feature (- for NOT), length, replacement.
    [Theory]
    [InlineData("fb 90 90 90 90", "fb 0f 1f 40 00", "off 5 fa")]
    [InlineData("fb 90 90 90 90", "fa 0f 1f 40 00", "on 5 fa")]
    [InlineData("fb 90 90 90 90", "fa 0f 1f 40 00", "-off 5 fa")]
    [InlineData("fb 90 90 90 90", "fb 0f 1f 40 00", "-on 5 fa")]
    [InlineData("fb 90 90 90 90", "0f 1f 44 00 00", "on 5 ")]
    [InlineData("fb 90 90 90 90", "9c 58 0f 1f 00", "on 5 fa", "also 5 9c 58")]
    [InlineData("fb 90 90 90 90", "fa 0f 1f 40 00", "on 5 fa", "off 5 9c 58")]
    [InlineData("fb 90 90 90 90", "fa 9c 58 66 90", "on 5 fa 9c 58", "off 3 fb fb fb")]
    public void The_last_record_that_applies_counts_and_nops_are_merged_in_any_case(string old, string expected, params string[] records)
    {
        Assert.Equal(expected, Predict(TextRules.Linux61, old, records));
        Assert.Equal(expected, Predict(TextRules.Linux612, old, records));
        Assert.Equal(expected, Predict(TextRules.Linux72, old, records));
    }

    // From 6.8 on all records of an address are as long as the longest; before each has its own length.
    [Theory]
    [InlineData("fb 90 90 90 90 90", "9c 58 0f 1f 40 00", "9c 58 90 0f 1f 00", "on 6 fa fa fa 90 90 90", "also 3 9c 58")]
    [InlineData("fb 90 90 90 90 90", "9c 58 0f 1f 40 00", "9c 58 90 44 00 00", "off 6 fa", "also 3 9c 58")]
    [InlineData("fb 90 90 90 90 90", "9c 58 0f 1f 40 00", "9c 58 0f 1f 40 00", "on 3 fa", "also 6 9c 58")]
    public void From_6_8_on_all_records_of_an_address_are_as_long_as_the_longest(
        string old, string expected, string before, params string[] records)
    {
        Assert.Equal(before, Predict(TextRules.Linux61, old, records));
        Assert.Equal(expected, Predict(TextRules.Linux612, old, records));
    }

    [Fact]
    public void Nops_are_those_of_the_processor_to_5_12()
    {
        TextSample sample = Sample("fb 90 90 90 90", "off 5 fa");
        sample.Nops = NopStyle.K8;
        Assert.Equal("fb 66 66 66 90", sample.Predict(TextRules.Linux510, TextMechanism.Alternative, Site, 5));
        sample.Nops = null;
        Assert.Equal("open", sample.Predict(TextRules.Linux510, TextMechanism.Alternative, Site, 5));
        sample = Sample("fb 90 90", "off 3 fa");
        sample.Nops = null;
        Assert.Equal("fb 66 90", sample.Predict(TextRules.Linux510, TextMechanism.Alternative, Site, 3));
    }

    [Fact]
    public void Replacements_are_taken_as_they_stand_in_memory()
    {
        // A return in a replacement is patched before the alternative is applied.
        var sample = new TextSample();
        ulong replacement = sample.Kernel.NextReplacement;
        ulong thunk = TextSample.Code + 0x40;
        byte[] jump = [0xe9, .. BitConverter.GetBytes((int)(thunk - (replacement + 5)))];
        sample.Put(Site, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90).Record(".return_sites", replacement).Symbol("__x86_return_thunk", thunk);
        sample.Kernel.AddAlternative(Site, 6, On, false, jump);
        sample.Features = [On];
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(
            TextRules.Linux612, TextMechanism.Return, TextMechanism.Alternative);
        Assert.Empty(findings);
        Assert.True(text.TryGet(Site, 6, out ReadOnlySpan<byte> bytes));
        Assert.Equal("c3 cc cc cc cc 90", HexBytes.Format(bytes));
    }

    [Fact]
    public void A_feature_that_is_not_known_leaves_a_site_open_unless_a_later_record_decides()
    {
        TextSample sample = Sample("fb 90 90", "on 3 fa", "also 3 fc");
        sample.Features = null;
        Assert.Equal("open", sample.Predict(TextRules.Linux612, TextMechanism.Alternative, Site, 3));
        Assert.Equal("open", sample.Predict(TextRules.Linux61, TextMechanism.Alternative, Site, 3));

        sample = Sample("fb 90 90", "on 3 fa", "always 3 fc");
        sample.Features = null;
        Assert.Equal("fc 66 90", sample.Predict(TextRules.Linux612, TextMechanism.Alternative, Site, 3));
        Assert.Equal("fc 66 90", sample.Predict(TextRules.Linux61, TextMechanism.Alternative, Site, 3));

        // It does not matter where the bytes are the same either way.
        sample = Sample("fa 90 90", "on 3 fa");
        sample.Features = null;
        Assert.Equal("fa 66 90", sample.Predict(TextRules.Linux612, TextMechanism.Alternative, Site, 3));
        Assert.Equal("fa 66 90", sample.Predict(TextRules.Linux61, TextMechanism.Alternative, Site, 3));

        sample = Sample("fb 90 90", "always 3 fc", "on 3 fa");
        sample.Features = null;
        Assert.Equal("open", sample.Predict(TextRules.Linux61, TextMechanism.Alternative, Site, 3));
    }

    [Fact]
    public void Two_records_that_overlap_are_refused()
    {
        TextSample sample = Sample("fb 90 90 90 90 90", "on 5 fa");
        sample.Kernel.AddAlternative(Site + 4, 2, On, false, 0xfc);
        Refused(sample, KernelDiagnosticCodes.AlternativeUnknown);
    }

    [Fact]
    public void A_feature_beyond_the_words_is_refused()
    {
        TextSample sample = Sample("fb 90 90");
        sample.Kernel.AddAlternative(Site, 3, 24 * 32, false, 0xfa);
        Refused(sample, KernelDiagnosticCodes.AlternativeUnknown);
    }

    [Theory]
    [InlineData(0x3000, 2, 3)] // behind the section of replacements
    [InlineData(0, 255, 255)]
    [InlineData(0, 9, 3)] // longer than the site
    public void A_replacement_that_is_not_there_or_too_long_is_refused(int at, byte length, byte siteLength)
    {
        TextSample sample = Sample("fb 90 90", "on 3 fa");
        byte[] table = sample.Kernel.AlternativesBytes();
        int record = table.Length - 12;
        BinaryPrimitives.WriteInt32LittleEndian(
            table.AsSpan(record + 4), BinaryPrimitives.ReadInt32LittleEndian(table.AsSpan(record + 4)) + at);
        table[record + 10] = siteLength;
        table[record + 11] = length;
        sample.Kernel.AlternativesTable = table;
        (TextImage? text, IReadOnlyList<PatchDiagnostic> findings) = TryRun(sample);
        Assert.NotEmpty(findings);
        Assert.True(text is null || text.OwnerAt(Site) == TextMechanism.None);
    }

    [Fact]
    public void A_site_of_255_bytes_is_a_site()
    {
        TextSample sample = new();
        sample.Put(Site, [.. Enumerable.Repeat((byte)0x90, 255)]);
        sample.Kernel.AddAlternative(Site, 255, On, false);
        sample.Features = [On];
        Assert.Equal($"e9 fa 00 00 00 {string.Join(' ', Enumerable.Repeat("cc", 250))}",
            sample.Predict(TextRules.Linux612, TextMechanism.Alternative, Site, 255));
    }

    [Theory]
    [InlineData("vdso_image_64", true)]
    [InlineData("vdso32_image", true)]
    [InlineData("vdso_image_other", false)]
    public void Vdso_images_are_patched_by_their_own_alternatives(string symbol, bool isPatched)
    {
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = Vdso(symbol, 0x200, 0x100).Run(
            TextRules.Linux612, TextMechanism.Alternative);
        Assert.Empty(findings);
        Assert.Equal(isPatched, text.TryGet(TextSample.Data + 0x100, 3, out ReadOnlySpan<byte> bytes));
        Assert.Equal(isPatched ? "fa 66 90" : "", HexBytes.Format(bytes));
    }

    [Theory]
    [InlineData(0x2000UL, 0x100UL)] // beyond the data
    [InlineData(0x20UL, 0x100UL)] // its table beyond it
    [InlineData(0x200UL, ulong.MaxValue)]
    public void A_vdso_image_that_lies_is_refused(ulong size, ulong alternatives)
    {
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = Vdso("vdso_image_64", size, alternatives).Run(
            TextRules.Linux612, TextMechanism.Alternative);
        Assert.Equal(KernelDiagnosticCodes.TextRecordOutside, Assert.Single(findings).Code);
        Assert.False(text.TryGet(TextSample.Data + 0x100, 3, out _));
    }

    /// <summary>An image at +100 with one record at +100 of it, and its header in front.</summary>
    private static TextSample Vdso(string symbol, ulong size, ulong alternatives)
    {
        const ulong Image = TextSample.Data + 0x100;
        var sample = new TextSample { Features = [On] };
        byte[] record = new byte[12];
        BinaryPrimitives.WriteInt32LittleEndian(record, -0x100);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), 0x80 - 0x104);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(8), On);
        (record[10], record[11]) = (3, 1);
        return sample.Put(Image, 0xfb, 0x90, 0x90).Put(Image + 0x80, 0xfa).Put(Image + 0x100, record).Symbol(symbol, TextSample.Data)
            .Put(TextSample.Data, [.. BitConverter.GetBytes(Image), .. BitConverter.GetBytes(size), .. BitConverter.GetBytes(alternatives),
                .. BitConverter.GetBytes(12UL)]);
    }

    private static void Refused(TextSample sample, string code)
    {
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux612, TextMechanism.Alternative);
        Assert.Contains(findings, f => f.Code == code);
        Assert.Equal(TextMechanism.None, text.OwnerAt(Site));
    }

    /// <summary>A table that lies may already be refused when the kernel is opened.</summary>
    private static (TextImage? Text, IReadOnlyList<PatchDiagnostic> Findings) TryRun(TextSample sample)
    {
        if (!KernelImage.TryOpen(sample.Kernel.Elf(), out _, out PatchDiagnostic? error))
        {
            return (null, [error]);
        }

        return sample.Run(TextRules.Linux612, TextMechanism.Alternative);
    }

    private static string Predict(TextRules rules, string old, params string[] records) =>
        Sample(old, records).Predict(rules, TextMechanism.Alternative, Site, Bytes.FromHex(old).Length);

    private static TextSample Sample(string old, params string[] records)
    {
        TextSample sample = new TextSample { Features = [On, AlsoOn] }.Put(Site, Bytes.FromHex(old));
        foreach (string record in records)
        {
            string[] words = record.Split(' ', 3);
            int feature = words[0].TrimStart('-') switch { "on" => On, "also" => AlsoOn, "off" => Off, _ => FeatureWords.Always };
            int length = int.Parse(words[1], CultureInfo.InvariantCulture);
            sample.Kernel.AddAlternative(Site, length, feature, words[0][0] == '-', Bytes.FromHex(words[2]));
        }

        return sample;
    }
}
