using System.Globalization;
using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>Every row of <c>branches.txt</c> against <see cref="BranchCode"/> and <see cref="StaticCallCode"/>.</summary>
public sealed class GoldenBranchTests
{
    [Fact]
    public void Every_site_holds_what_the_table_says()
    {
        var wrong = new List<string>();
        foreach (GoldenRow row in GoldenTable.Load("branches.txt").Rows)
        {
            (bool inReach, SiteBytes bytes) = Encode(row);
            byte[] made = bytes.ToArray(row.Int32("length"));
            if (!inReach || !made.AsSpan().SequenceEqual(row.Bytes("bytes")))
            {
                wrong.Add($"{row.Place}: table {row["bytes"]}, engine {HexBytes.Format(made)}{(inReach ? "" : ", out of reach")}");
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
    }

    [Theory]
    [InlineData(2, 0x1002 + 127, true)]
    [InlineData(2, 0x1002 + 128, false)]
    [InlineData(2, 0x1002 - 128, true)]
    [InlineData(2, 0x1002 - 129, false)]
    [InlineData(5, 0x1005 + 0x7fffffffL, true)]
    [InlineData(5, 0x1005 + 0x80000000L, false)]
    public void A_branch_reaches_so_far_and_no_farther(int length, long target, bool reaches) =>
        Assert.Equal(reaches, BranchCode.TryEncode(0x1000, length, (ulong)target, out _));

    [Theory]
    [InlineData(0x2000 + 0x7fffffffL + 5, true)]
    [InlineData(0x2000 + 0x7fffffffL + 6, false)]
    public void A_call_reaches_so_far_and_no_farther(long target, bool reaches) =>
        Assert.Equal(reaches, StaticCallCode.TryEncode(StaticCallForm.Call, ConditionCode.None, 0x2000, target, (ulong)target, out _, out _));

    private static (bool InReach, SiteBytes Bytes) Encode(GoldenRow row)
    {
        var site = new VirtualAddress(row.OptionalNumber("site")!.Value);
        string[] words = row["leads to"].Split(' ');
        ulong? Address(string word) =>
            word.StartsWith("0x", StringComparison.Ordinal) ? ulong.Parse(word[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture) : null;
        ulong? place = Address(words[^1]);
        if (row["form"] == "branch")
        {
            bool inReach = BranchCode.TryEncode(site, row.Int32("length"), place is ulong p ? new VirtualAddress(p) : null, out SiteBytes branch);
            return (inReach, branch);
        }

        StaticCallForm form = row["form"] switch
        {
            "call" => StaticCallForm.Call,
            "tail" => StaticCallForm.TailCall,
            "cond" => StaticCallForm.ConditionalTailCall,
            _ => StaticCallForm.Entry,
        };
        ConditionCode condition = row["condition"] == "-" ? ConditionCode.None : Enum.Parse<ConditionCode>(row["condition"]);
        long target = words[0] switch { "nowhere" => StaticCallCode.Null, "zero" => StaticCallCode.Zero, _ => (long)place!.Value };
        bool reached = StaticCallCode.TryEncode(form, condition, site, target, new VirtualAddress(place ?? 0), out PatchAction _, out SiteBytes bytes);
        return (reached, bytes);
    }
}
