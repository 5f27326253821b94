using System.Buffers;
using PvPatch.Images;

namespace PvPatch.Tests.Sites;

/// <summary>An image whose segments share bytes would let a plan check one site and write another.</summary>
public sealed class CodeImageTests
{
    private static readonly byte[] s_bytes = new byte[64];

    [Theory]
    [InlineData(0, 64, 0, 64)] // the same bytes
    [InlineData(0, 32, 31, 8)] // the last byte of one
    [InlineData(31, 8, 0, 32)] // in the other order of addresses
    [InlineData(0, 64, 63, 1)]
    public void Segments_over_the_same_bytes_are_refused(int start, int length, int otherStart, int otherLength)
    {
        ArgumentException refused = Assert.Throws<ArgumentException>(() => new CodeImage(
            64,
            new CodeSegment(".one", 0x1000, s_bytes.AsMemory(start, length)),
            new CodeSegment(".between", 0x4000, new byte[8]),
            new CodeSegment(".other", 0x9000, s_bytes.AsMemory(otherStart, otherLength))));
        Assert.Contains(".one", refused.Message, StringComparison.Ordinal);
        Assert.Contains(".other", refused.Message, StringComparison.Ordinal);
        Assert.Equal("segments", refused.ParamName);
    }

    [Fact]
    public void Neighbours_in_one_array_are_an_image()
    {
        var image = new CodeImage(
            64,
            new CodeSegment(".b", 0x2000, s_bytes.AsMemory(0, 32)),
            new CodeSegment(".a", 0x1000, s_bytes.AsMemory(32, 32)),
            new CodeSegment(".none", 0x1800, s_bytes.AsMemory(8, 0)));
        Assert.Equal([".a", ".b"], image.Segments.Select(static s => s.Name));
    }

    [Fact]
    public void Memory_of_two_managers_over_the_same_bytes_is_refused()
    {
        using var one = new Manager(s_bytes, 0);
        using var other = new Manager(s_bytes, 16);
        using var behind = new Manager(s_bytes, 48);
        Assert.Throws<ArgumentException>(
            () => new CodeImage(64, new CodeSegment("a", 0x1000, one.Memory[..32]), new CodeSegment("b", 0x2000, other.Memory[..8])));
        Assert.Throws<ArgumentException>(
            () => new CodeImage(64, new CodeSegment("a", 0x1000, one.Memory[..32]), new CodeSegment("b", 0x2000, s_bytes.AsMemory(31))));
        Assert.Throws<ArgumentException>(
            () => new CodeImage(64, new CodeSegment("a", 0x1000, one.Memory[..32]), new CodeSegment("b", 0x2000, one.Memory.Slice(31, 2))));
        Assert.Equal(2, new CodeImage(64, new CodeSegment("a", 0x1000, one.Memory[..32]), new CodeSegment("b", 0x2000, behind.Memory[..8]))
            .Segments.Count);
    }

    /// <summary>Memory that is no array of its own: a window into one, as an unmanaged mapping would be.</summary>
    private sealed class Manager(byte[] bytes, int start) : MemoryManager<byte>
    {
        public override Span<byte> GetSpan() => bytes.AsSpan(start);

        public override MemoryHandle Pin(int elementIndex = 0) => bytes.AsMemory(start + elementIndex).Pin();

        public override void Unpin()
        {
        }

        protected override void Dispose(bool disposing)
        {
        }
    }
}
