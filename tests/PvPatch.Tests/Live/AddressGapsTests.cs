using PvPatch.Live.Platform;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Live;

public sealed class AddressGapsTests
{
    private const ulong Gib = 1UL << 30;
    private const ulong Size = 64UL << 20;

    [Fact]
    public void The_list_of_mappings_is_read_and_odd_lines_are_passed_over()
    {
        List<AddressGaps.Mapping> mappings = AddressGaps.Parse([
            "7f0c12345000-7f0c12346000 r-xp 00000000 fd:01 1234                       /usr/lib/libc.so.6",
            "7f0c12346000-7f0c12347000 rw-p 00000000 00:00 0 ",
            "",
            "nonsense",
            "12-zz r-xp",
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]"]);
        Assert.Equal(
            [new(0x7f0c12345000, 0x7f0c12346000, true), new(0x7f0c12346000, 0x7f0c12347000, false),
                new(0xffffffffff600000, 0xffffffffff601000, true)],
            mappings);
    }

    [Fact]
    public void Every_place_lies_in_a_gap_and_every_byte_of_it_in_reach()
    {
        Random random = TestSeed.NewRandom();
        for (int round = 0; round < 200; round++)
        {
            var mappings = new List<AddressGaps.Mapping>();
            ulong at = 0x7f00_0000_0000;
            for (int i = 0; i < 40; i++)
            {
                at += (ulong)random.NextInt64(0, (long)Gib / 2) & ~0xfffUL;
                ulong end = at + ((ulong)random.NextInt64(0x1000, (long)Gib / 4) & ~0xfffUL);
                mappings.Add(new(at, end, false));
                at = end;
            }

            ulong near = mappings[random.Next(mappings.Count)].Start;
            List<ulong> places = AddressGaps.Candidates(mappings, near, Size, 1 << 16);
            ulong before = 0;
            foreach (ulong place in places)
            {
                Assert.Equal(0UL, place % (1 << 16));
                Assert.DoesNotContain(mappings, m => place < m.End && m.Start < place + Size);
                ulong farthest = near > place ? near - place : place + Size - near;
                Assert.InRange(farthest, 0UL, 2 * Gib - 1);
                ulong distance = near < place ? place + Size - near : near - place;
                Assert.True(distance >= before, "nearest first");
                before = distance;
            }
        }
    }

    [Fact]
    public void A_gap_that_is_only_just_in_reach_or_just_too_far_is_told_apart()
    {
        const ulong Near = 0x7000_0000_0000;
        AddressGaps.Mapping[] all = [new(0, Near + 2 * Gib - Size - 0x20000, false), new(Near + 2 * Gib - 0x10000, ulong.MaxValue, false)];
        Assert.Single(AddressGaps.Candidates(all, Near, Size, 1 << 16));
        AddressGaps.Mapping[] tooFar = [new(0, Near + 2 * Gib - Size, false), new(Near + 3 * Gib, ulong.MaxValue, false)];
        Assert.Empty(AddressGaps.Candidates(tooFar, Near, Size, 1 << 16));
    }

    [Fact]
    public void Nothing_is_placed_in_the_first_megabyte_or_behind_user_space()
    {
        Assert.All(AddressGaps.Candidates([], 0, Size, 1 << 16), static p => Assert.True(p >= 1 << 20));
        Assert.All(AddressGaps.Candidates([], 0x7fff_ffff_0000, Size, 1 << 16), static p => Assert.True(p + Size <= 0x7fff_ffff_0000));
        Assert.Empty(AddressGaps.Candidates([], ulong.MaxValue, Size, 1 << 16));
    }
}
