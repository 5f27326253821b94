using PvPatch.Live;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Live;

public sealed class ArenaSpaceTests
{
    [Fact]
    public void What_is_taken_never_overlaps_and_everything_comes_back()
    {
        Random random = TestSeed.NewRandom();
        for (int round = 0; round < 50; round++)
        {
            var space = new ArenaSpace(0, 10_000);
            var taken = new List<(long Start, long Length)>();
            for (int step = 0; step < 400; step++)
            {
                long alignment = 1L << random.Next(7);
                long length = random.Next(1, 300);
                if (random.Next(5) < 3 && space.TryTake(length, alignment, out long offset))
                {
                    Assert.Equal(0, offset % alignment);
                    Assert.InRange(offset, 0, 10_000 - length);
                    Assert.DoesNotContain(taken, t => offset < t.Start + t.Length && t.Start < offset + length);
                    taken.Add((offset, length));
                }
                else if (taken.Count > 0)
                {
                    int index = random.Next(taken.Count);
                    space.Give(taken[index].Start, taken[index].Length);
                    taken.RemoveAt(index);
                }

                Assert.Equal(taken.Sum(static t => t.Length), space.Used);
            }

            taken.ForEach(t => space.Give(t.Start, t.Length));
            Assert.True(space.TryTake(10_000, 1, out long whole));
            Assert.Equal(0, whole);
        }
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        var space = new ArenaSpace(64, 128);
        Assert.False(space.TryTake(65, 1, out _));
        Assert.True(space.TryTake(64, 64, out long offset));
        Assert.Equal(64, offset);
        Assert.False(space.TryTake(1, 1, out _));
    }
}
