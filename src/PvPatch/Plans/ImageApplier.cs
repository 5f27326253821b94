using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// The one place that writes an image nobody is running. Two passes: the first reads every site and writes nothing, so that a
/// refused plan leaves no trace; the second writes. Chooses no byte.
/// </summary>
/// <remarks>
/// Nearly every image holds the old bytes at all sites, or the new ones at all. Both are asked first, by a loop that stops at the first
/// site for which it is not so; a mixed image is checked site by site. Where all sites are to be written, a masked store writes each; else
/// the general way compares before it writes.
/// </remarks>
internal static class ImageApplier
{
    private const int BlockSize = 128;

    public static bool TryRun(PatchPlan plan, CodeImage image, bool toNew, out ApplyResult result) =>
        TryRun(plan, image, toNew, Avx512BW.VL.IsSupported, out result);

    /// <summary>As above, by masked stores or without them.</summary>
    internal static bool TryRun(PatchPlan plan, CodeImage image, bool toNew, bool masked, out ApplyResult result)
    {
        long start = Stopwatch.GetTimestamp();
        int written = 0;
        if (image.Bitness != plan.Bitness)
        {
            return Refused(NewReport(plan).Add(PlanCheck.WrongBitness(plan, image)), out result);
        }

        if (AllHold(plan, image, !toNew))
        {
            WriteAll(plan, image, toNew, masked);
            written = plan.ChangeCount;
        }
        else if (!AllHold(plan, image, toNew))
        {
            if (Check(plan, image) is ApplyReport wrong)
            {
                return Refused(wrong, out result);
            }

            written = WriteWhereDifferent(plan, image, toNew);
        }

        result = new ApplyResult(plan.Backend, plan.Count, written, Stopwatch.GetElapsedTime(start));
        PlanLog.Applied(plan.Logger, toNew ? "applied" : "reverted", plan.Backend, result.Written, result.AlreadyThere);
        return true;

        bool Refused(ApplyReport report, out ApplyResult result)
        {
            report.Elapsed = Stopwatch.GetElapsedTime(start);
            result = new ApplyResult(ApplyStatus.Refused, report);
            PlanLog.Refused(plan.Logger, toNew ? "apply" : "revert", plan.Backend, report.Diagnostics.Count, report.Diagnostics[0]);
            return false;
        }
    }

    /// <summary>Whether every site is in the image and holds its new (or old) bytes.</summary>
    private static bool AllHold(PatchPlan plan, CodeImage image, bool isNew)
    {
        var window = new ImageWindow(image);
        int reach = 0;
        for (int i = 0; i < plan.Count; i++)
        {
            reach = i < reach ? reach : EndOf(plan, i, window);
            i = HoldRun(plan, i, NextInOverflow(plan, i, reach), window, isNew);
            if (i < plan.Count && !Holds(plan, i, isNew, ref window))
            {
                return false;
            }
        }

        return true;
    }

    private static unsafe int HoldRun(PatchPlan plan, int index, int end, in ImageWindow window, bool isNew)
    {
        fixed (byte* first = window.Bytes)
        fixed (PlanEntry* entries = plan.Entries)
        fixed (OldForm* olds = plan.Olds)
        fixed (NewForm* news = plan.News)
        {
            byte* origin = unchecked(first - window.Start);
            PlanEntry* reached = isNew ? SiteLoops.HoldNew(entries + index, entries + end, olds, news, origin)
                : SiteLoops.HoldOld(entries + index, entries + end, olds, origin);
            return (int)(reached - entries);
        }
    }

    /// <summary>
    /// What <see cref="AllHold"/> asks, for a site at the end of a segment, one in the overflow, and the first of a segment.
    /// </summary>
    private static bool Holds(PatchPlan plan, int index, bool isNew, ref ImageWindow window)
    {
        Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
        return window.Reach(plan.Entries[index].Address, plan.LengthOf(index), out Span<byte> there)
            && there.SequenceEqual(isNew ? plan.NewBytesOf(index, scratch) : plan.OldBytesOf(index, scratch));
    }

    /// <summary>The index of the first site from an index on that can't be handled as a vector in the segment where a walk is.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int EndOf(PatchPlan plan, int index, in ImageWindow window) => window.EndOf(plan.Entries, index);

    /// <summary>The index of the first site from an index on whose bytes are in the overflow; an end where there is none before it.</summary>
    private static int NextInOverflow(PatchPlan plan, int index, int end)
    {
        if (!plan.HasOverflow)
        {
            return end;
        }

        while (index < end && !plan.Entries[index].IsOverflow)
        {
            index++;
        }

        return index;
    }

    private static ApplyReport NewReport(PatchPlan plan) => new(plan.Backend) { IsOfImage = true, Count = plan.Count };

    /// <summary>Findings where a site of a mixed image holds unknown bytes or is not in it.</summary>
    private static ApplyReport? Check(PatchPlan plan, CodeImage image)
    {
        ApplyReport? wrong = null;
        Span<byte> oldScratch = stackalloc byte[SiteBytes.MaxLength];
        Span<byte> newScratch = stackalloc byte[SiteBytes.MaxLength];
        var window = new ImageWindow(image);
        for (int i = 0; i < plan.Count; i++)
        {
            if (!window.Reach(plan.Entries[i].Address, plan.LengthOf(i), out Span<byte> there))
            {
                (wrong ??= NewReport(plan)).Add(UnexpectedSite.Outside(plan[i]));
            }
            else if (!there.SequenceEqual(plan.OldBytesOf(i, oldScratch)) && !there.SequenceEqual(plan.NewBytesOf(i, newScratch))
                && !plan.IsFromPredecessor(i, there))
            {
                (wrong ??= NewReport(plan)).Add(UnexpectedSite.Unexpected(plan[i], there));
            }
        }

        return wrong;
    }

    /// <summary>Writes all sites that hold other bytes than the wanted ones, where every site holds those it is changed from.</summary>
    private static void WriteAll(PatchPlan plan, CodeImage image, bool toNew, bool masked)
    {
        var window = new ImageWindow(image);
        int reach = 0;
        for (int i = 0; i < plan.Count; i++)
        {
            reach = i < reach ? reach : EndOf(plan, i, window);
            int end = NextInOverflow(plan, i, reach);
            WriteRun(plan, i, end, window, toNew, masked);
            i = end;
            if (i < plan.Count)
            {
                WriteOne(plan, i, toNew, ref window);
            }
        }
    }

    private static unsafe void WriteRun(PatchPlan plan, int index, int end, in ImageWindow window, bool toNew, bool masked)
    {
        fixed (byte* first = window.Bytes)
        fixed (PlanEntry* entries = plan.Entries)
        fixed (OldForm* olds = plan.Olds)
        fixed (NewForm* news = plan.News)
        {
            byte* origin = unchecked(first - window.Start);
            if (!masked)
            {
                SiteLoops.StoreBlended(entries + index, entries + end, olds, news, origin, toNew);
            }
            else if (toNew)
            {
                SiteLoops.StoreNew(entries + index, entries + end, news, origin);
            }
            else
            {
                SiteLoops.StoreOld(entries + index, entries + end, olds, news, origin);
            }
        }
    }

    /// <summary>Writes all sites that hold other bytes than the wanted ones, whatever each holds; how many.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static int WriteWhereDifferent(PatchPlan plan, CodeImage image, bool toNew)
    {
        // What is to be stored is collected for a block of sites, then stored. Collecting has no branch on whether a site needs it, which
        // in a mixed image nobody could predict, and its loads never wait for the store of the site before, which often reaches into the
        // next one's 16 bytes.
        Span<Vector128<byte>> blended = stackalloc Vector128<byte>[BlockSize];
        Span<ulong> addresses = stackalloc ulong[BlockSize];
        ref Vector128<byte> firstBlended = ref MemoryMarshal.GetReference(blended);
        ref ulong firstAddress = ref MemoryMarshal.GetReference(addresses);
        ref OldForm olds = ref MemoryMarshal.GetArrayDataReference(plan.Olds);
        ref NewForm news = ref MemoryMarshal.GetArrayDataReference(plan.News);
        ref PlanEntry entries = ref MemoryMarshal.GetArrayDataReference(plan.Entries);
        var window = new ImageWindow(image);
        int all = plan.Count;
        int written = 0;
        int i = 0;
        int reachable = 0;
        while (i < all)
        {
            reachable = i < reachable ? reachable : EndOf(plan, i, window);
            ref byte first = ref window.First;
            ulong start = window.Start;
            int count = 0;
            int end = Math.Min(reachable, i + BlockSize);
            for (; i < end; i++)
            {
                ref readonly PlanEntry entry = ref Unsafe.Add(ref entries, i);
                if (entry.IsOverflow)
                {
                    break;
                }

                ref readonly OldForm old = ref Unsafe.Add(ref olds, entry.Old);
                Vector128<byte> there = Vector128.LoadUnsafe(ref Unsafe.Add(ref first, (nint)(entry.Address - start)));
                Vector128<byte> wanted = old.With(entry.Field);
                if (toNew)
                {
                    wanted = Unsafe.Add(ref news, entry.New).At(entry.Address, wanted);
                }

                // count is at most the number of sites seen in this block, less than BlockSize.
                Unsafe.Add(ref firstBlended, count) = Vector128.AndNot(there, old.Whole) | wanted;
                Unsafe.Add(ref firstAddress, count) = entry.Address;
                // Never store the same bytes again: an emulator that watches its code pages pays dearly for each store.
                // a bool is one byte, 0 or 1 where managed code made it
                count += 1 - Unsafe.BitCast<bool, byte>((there & old.Whole) == wanted);
            }

            // Bytes behind a site are stored back as they were read. That is right because sites are stored in order of address: where
            // they belong to a later site, that one's store follows. Nobody else runs or writes the image now; a blend would be just as
            // wrong as any other store if somebody did.
            for (int k = 0; k < count; k++)
            {
                Vector128.StoreUnsafe(
                    Unsafe.Add(ref firstBlended, k), ref Unsafe.Add(ref first, (nint)(Unsafe.Add(ref firstAddress, k) - start)));
            }

            written += count;
            if (i < all && (i == reachable || Unsafe.Add(ref entries, i).IsOverflow))
            {
                written += WriteOne(plan, i, toNew, ref window);
                i++;
            }
        }

        return written;
    }

    /// <summary>Writes a site at the end of a segment, one in the overflow, or the first of a segment; 1 where it was written.</summary>
    private static int WriteOne(PatchPlan plan, int index, bool toNew, ref ImageWindow window)
    {
        Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
        ReadOnlySpan<byte> wanted = toNew ? plan.NewBytesOf(index, scratch) : plan.OldBytesOf(index, scratch);
        window.Reach(plan.Entries[index].Address, wanted.Length, out Span<byte> there); // as in the pass before
        if (there.SequenceEqual(wanted))
        {
            return 0;
        }

        wanted.CopyTo(there);
        return 1;
    }
}
