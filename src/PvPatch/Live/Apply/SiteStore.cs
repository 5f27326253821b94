using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>The stores that change a site in one event. Each checks that the site still holds what it should.</summary>
internal static unsafe class SiteStore
{
    /// <summary>Changes a site of a class that one store serves.</summary>
    /// <param name="at">The site in the write view.</param>
    /// <param name="kind">Its class: anything but guarded and quiescent.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="old">What it holds.</param>
    /// <param name="new">What it is to hold.</param>
    /// <returns>Whether it held <paramref name="old"/>, and so was written.</returns>
    public static bool TryStore(byte* at, SiteClass kind, int length, SiteBytes old, SiteBytes @new) => kind switch
    {
        SiteClass.Atomic8 => TrySwap((ulong*)((nuint)at & ~(nuint)7), (int)((nuint)at & 7), length, old.Low, @new.Low),
        SiteClass.Line => TrySwapInLine(at, length, old.Low, @new.Low),
        _ => TryStore16((byte*)((nuint)at & ~(nuint)15), (int)((nuint)at & 15), length, old, @new),
    };

    /// <summary>One 8-byte compare-and-swap of the aligned word around the site.</summary>
    private static bool TrySwap(ulong* word, int offset, int length, ulong old, ulong @new)
    {
        int shift = offset * 8;
        ulong mask = (length == 8 ? ulong.MaxValue : (1UL << length * 8) - 1) << shift;

        // The bytes around the site are whatever they are now; the site's own must be the old ones, or the swap fails.
        ulong around = Volatile.Read(ref *word) & ~mask;
        ulong expected = around | old << shift;
        return Interlocked.CompareExchange(ref *word, around | @new << shift, expected) == expected;
    }

    /// <summary>One compare-and-swap of 8 bytes inside the line, wherever they begin.</summary>
    private static bool TrySwapInLine(byte* at, int length, ulong old, ulong @new)
    {
        int inLine = (int)((nuint)at & (SiteClassifier.LineSize - 1));
        int back = Math.Max(0, inLine + 8 - SiteClassifier.LineSize);
        return TrySwap((ulong*)(at - back), back, length, old, @new);
    }

    /// <summary>
    /// One aligned 16-byte store, movaps: atomic on processors with AVX. Nobody else writes here, for the patch lock is held.
    /// </summary>
    private static bool TryStore16(byte* line, int offset, int length, SiteBytes old, SiteBytes @new)
    {
        if (SiteBytes.Read(line + offset, length) != old)
        {
            return false;
        }

        Vector128<byte> there = Sse2.LoadAlignedVector128(line);
        byte* merged = stackalloc byte[16];
        Sse2.Store(merged, there);
        new ReadOnlySpan<byte>(&@new, length).CopyTo(new Span<byte>(merged + offset, length));
        Sse2.StoreAligned(line, Sse2.LoadVector128(merged));
        return true;
    }
}
