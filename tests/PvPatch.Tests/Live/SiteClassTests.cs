using PvPatch.Live;

namespace PvPatch.Tests.Live;

public sealed class SiteClassTests
{
    private const ulong Line = 0x7000_0000_0040;

    [Fact]
    public void Every_start_and_length_has_the_class_its_bytes_say()
    {
        for (int start = 0; start < 64; start++)
        {
            for (int length = 1; length <= 15; length++)
            {
                foreach (bool atomic16 in (bool[])[false, true])
                {
                    foreach (bool trust in (bool[])[false, true])
                    {
                        SiteClass found = SiteRecord.Classify(Line + (ulong)start, length, single: true, atomic16, trust);
                        Assert.Equal(ByBytes(start, length, atomic16, trust), found);
                    }
                }
            }
        }
    }

    [Fact]
    public void Several_instructions_and_long_sites_are_for_quiescence_only()
    {
        for (int start = 0; start < 64; start++)
        {
            Assert.Equal(
                SiteClass.QuiescentOnly, SiteRecord.Classify(Line + (ulong)start, 6, single: false, atomic16: true, trustLines: true));
            Assert.Equal(
                SiteClass.QuiescentOnly, SiteRecord.Classify(Line + (ulong)start, 16, single: true, atomic16: true, trustLines: true));
        }
    }

    [Theory]
    [InlineData(6, 24, 20, 16)] // of 64 starts: 37.5 % in an aligned 8; of the rest in an aligned 16; across the line's end
    public void A_six_byte_site_falls_as_often_into_each_class_as_counted_by_hand(int length, int atomic8, int atomic16, int guarded)
    {
        ILookup<SiteClass, int> starts = Enumerable.Range(0, 64)
            .ToLookup(s => SiteRecord.Classify(Line + (ulong)s, length, single: true, atomic16: true, trustLines: false));
        Assert.Equal(atomic8, starts[SiteClass.Atomic8].Count());
        Assert.Equal(atomic16, starts[SiteClass.Atomic16].Count());
        Assert.Equal(guarded, starts[SiteClass.Guarded].Count());
        Assert.Equal([15, 31, 47, 63], starts[SiteClass.QuiescentOnly]);
    }

    [Fact]
    public void Placements_hold_what_they_promise_for_every_start_and_length()
    {
        for (int start = 0; start < 64; start++)
        {
            for (int length = 6; length <= 15; length++)
            {
                foreach (SitePlacement placement in Enum.GetValues<SitePlacement>())
                {
                    if ((placement == SitePlacement.InsideAligned8 && length > 8) || placement == SitePlacement.None)
                    {
                        continue;
                    }

                    int padding = new EmittedSite(0, new(0, 0, length, default), placement, false, -1).PaddingFor(start);
                    SiteClass kind = ByBytes((start + padding) % 64, length, atomic16: true, trust: false);
                    Assert.True(placement switch
                    {
                        SitePlacement.InsideAligned8 => kind == SiteClass.Atomic8,
                        SitePlacement.InsideAligned16 => kind is SiteClass.Atomic8 or SiteClass.Atomic16,
                        _ => kind != SiteClass.QuiescentOnly && (start + padding) % 64 + length <= 64,
                    }, $"{placement} {start}+{padding} {length}");
                }
            }
        }
    }

    /// <summary>The class, from the 8-, 16- and 64-byte pieces each byte lies in.</summary>
    private static SiteClass ByBytes(int start, int length, bool atomic16, bool trust)
    {
        int[] bytes = [.. Enumerable.Range(start, length)];
        bool In(int size) => bytes.Select(b => b / size).Distinct().Count() == 1;
        return In(8) ? SiteClass.Atomic8
            : atomic16 && In(16) ? SiteClass.Atomic16
            : trust && length <= 8 && In(64) ? SiteClass.Line
            : bytes[0] / 8 == bytes[1] / 8 ? SiteClass.Guarded
            : SiteClass.QuiescentOnly;
    }
}
