using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>Whether a site can be written while threads may be in it.</summary>
internal static class LiveRules
{
    /// <summary>Whether a site that holds one instruction can be changed.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="record">The site.</param>
    /// <param name="forward">Its way to a forwarding island; 0 where that can't be used.</param>
    public static bool CanWrite(CodeArena arena, in SiteRecord record, sbyte forward) => record.Class switch
    {
        SiteClass.QuiescentOnly => false,

        // A guard that spins must be taken down in the native call that put it up.
        SiteClass.Guarded => forward != 0 || !arena.Native.Barrier.IsZero,
        _ => true,
    };

    /// <summary>Whether executors can be forwarded around a body of several instructions until none is inside.</summary>
    public static bool CanDrain(CodeArena arena, in SiteRecord record, SiteBytes bytes, int length, sbyte forward)
    {
        // Executors are forwarded by the first two bytes while the body drains; who is behind a first instruction of one byte would come back into the
        // middle of these.
        return record.Class != SiteClass.QuiescentOnly && forward != 0 && arena.Executors.IsTracking && length >= 2
            && SiteClassifier.Fits(arena.Address + record.Offset, 2, 8) && FirstLength(bytes, length) >= 2;
    }

    private static int FirstLength(SiteBytes bytes, int length)
    {
        var decoder = Decoder.Create(64, bytes.ToArray(length));
        return decoder.Decode().Length;
    }
}
