namespace PvPatch.Paravirt;

/// <summary>Guards the bitness that callers give.</summary>
internal static class PvBitness
{
    public static void Check(int bitness)
    {
        if (bitness is not (32 or 64))
        {
            throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "the bitness is 32 or 64");
        }
    }
}
