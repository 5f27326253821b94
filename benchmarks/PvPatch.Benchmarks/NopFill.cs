namespace PvPatch.Benchmarks;

/// <summary>The rivals' own nops: nop r/m of 1 to 8 bytes, the longest first.</summary>
internal static class NopFill
{
    private static readonly byte[][] s_nops =
    [
        [],
        [0x90],
        [0x66, 0x90],
        [0x0f, 0x1f, 0x00],
        [0x0f, 0x1f, 0x40, 0x00],
        [0x0f, 0x1f, 0x44, 0x00, 0x00],
        [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
        [0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
        [0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    ];

    public static void Fill(Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            byte[] nop = s_nops[Math.Min(destination.Length, 8)];
            nop.CopyTo(destination);
            destination = destination[nop.Length..];
        }
    }
}
