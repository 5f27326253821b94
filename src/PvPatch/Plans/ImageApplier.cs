using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Microsoft.Extensions.Logging;
using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>
/// The one place that writes an image nobody is running. Two passes: the first reads every site and writes nothing, so that a
/// refused plan leaves no trace; the second writes. Chooses no byte.
/// </summary>
/// <remarks>
/// Nearly every image holds the old bytes at all sites, or the new ones at all. Both are asked first, by a loop that stops at the first site for which it is not so;
/// a mixed image is checked site by site. Where all sites are to be written, a masked store writes each; else the general way compares before it writes.
/// </remarks>
internal static class ImageApplier
{
    private const int BlockSize = 128;

    /// <summary>Whether a plan goes to its new bytes or back to the old ones; a type, so that each way gets a loop of its own.</summary>
    private interface IDirection
    {
        public static abstract bool ToNew { get; }
    }

    public static bool TryRun(PatchPlan plan, CodeImage image, bool toNew, out ApplyResult result) =>
        TryRun(plan, image, toNew, Avx512BW.VL.IsSupported, out result);

    /// <summary>As above, by masked stores or without them.</summary>
    internal static bool TryRun(
        PatchPlan plan, CodeImage image, bool toNew, bool masked, out ApplyResult result) =>
        toNew ? TryRun<Forward, Back>(plan, image, masked, out result) : TryRun<Back, Forward>(plan, image, masked, out result);

    private static bool TryRun<TTo, TFrom>(
        PatchPlan plan, CodeImage image, bool masked, out ApplyResult result)
        where TTo : struct, IDirection
        where TFrom : struct, IDirection
    {
        long start = Stopwatch.GetTimestamp();
        int written = 0;
        if (image.Bitness != plan.Bitness)
        {
            return Refused(new ApplyReport(plan.Backend) { Count = plan.Count }.Add(WrongBitness(plan, image)), out result);
        }

        if (AllHold<TFrom>(plan, image))
        {
            written = masked ? WriteMasked<TTo>(plan, image) : WriteWhereDifferent<TTo>(plan, image);
        }
        else if (!AllHold<TTo>(plan, image))
        {
            if (Check<TTo>(plan, image) is ApplyReport wrong)
            {
                return Refused(wrong, out result);
            }

            written = WriteWhereDifferent<TTo>(plan, image);
        }

        result = new ApplyResult(plan.Backend, plan.Count, written, Stopwatch.GetElapsedTime(start));
        PlanLog.Applied(plan.Logger, TTo.ToNew ? "applied" : "reverted", plan.Backend, result.Written, result.AlreadyThere);
        return true;

        bool Refused(ApplyReport report, out ApplyResult result)
        {
            report.Elapsed = Stopwatch.GetElapsedTime(start);
            result = new ApplyResult(ApplyStatus.Refused, report);
            PlanLog.Refused(plan.Logger, TTo.ToNew ? "apply" : "revert", plan.Backend, report.Diagnostics.Count, report.Diagnostics[0]);
            return false;
        }
    }

    private static PatchDiagnostic WrongBitness(PatchPlan plan, CodeImage image) =>
        PatchDiagnostic.Error(DiagnosticCodes.WrongBitness, "the image's bitness is not the plan's") with { Found = $"{image.Bitness}", Expected = $"{plan.Bitness}" };

    /// <summary>The bytes of an entry that is not in the overflow: the new ones or the old ones.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<byte> BytesOf<TSide>(in PlanEntry entry, in OldForm old, ref NewForm news)
        where TSide : struct, IDirection =>
        TSide.ToNew ? Unsafe.Add(ref news, entry.New).At(entry.Address, old.With(entry.Field)) : old.With(entry.Field);

    /// <summary>Whether every site is in the image and holds its new (or old) bytes.</summary>
    /// <remarks>Optimised when it is first called: a plan is most often applied once, and the loop is over before a second tier would help.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static bool AllHold<TSide>(PatchPlan plan, CodeImage image)
        where TSide : struct, IDirection
    {
        var window = new Window(image);
        ReadOnlySpan<PlanEntry> entries = plan.Entries;
        ref OldForm olds = ref MemoryMarshal.GetArrayDataReference(plan.Olds);
        ref NewForm news = ref MemoryMarshal.GetArrayDataReference(plan.News);
        for (int i = 0; i < entries.Length; i++)
        {
            VectorWindow near = window.Vectors; // a copy in registers: the window itself is handed on by reference
            for (; i < entries.Length; i++)
            {
                ref readonly PlanEntry entry = ref entries[i];
                if (!near.Holds(entry.Address) || entry.IsOverflow)
                {
                    break;
                }

                ref readonly OldForm old = ref Unsafe.Add(ref olds, entry.Old);
                if ((Vector128.LoadUnsafe(ref near.At(entry.Address)) & old.Whole) != BytesOf<TSide>(entry, old, ref news))
                {
                    return false;
                }
            }

            if (i < entries.Length && !Holds<TSide>(plan, i, ref window))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>What <see cref="AllHold"/> asks, for a site at the end of a segment, one in the overflow, and the first of a segment.</summary>
    private static bool Holds<TSide>(PatchPlan plan, int index, ref Window window)
        where TSide : struct, IDirection
    {
        Span<byte> scratch = stackalloc byte[SiteVector.MaxLength];
        return window.Reach(plan.Entries[index].Address, plan.LengthOf(index), out Span<byte> there)
            && there.SequenceEqual(TSide.ToNew ? plan.NewBytesOf(index, scratch) : plan.OldBytesOf(index, scratch));
    }

    /// <summary>Findings where a site of a mixed image holds unknown bytes or is not in it.</summary>
    private static ApplyReport? Check<TTo>(PatchPlan plan, CodeImage image)
        where TTo : struct, IDirection
    {
        ApplyReport? wrong = null;
        Span<byte> oldScratch = stackalloc byte[SiteVector.MaxLength];
        Span<byte> newScratch = stackalloc byte[SiteVector.MaxLength];
        var window = new Window(image);
        for (int i = 0; i < plan.Count; i++)
        {
            if (!window.Reach(plan.Entries[i].Address, plan.LengthOf(i), out Span<byte> there))
            {
                (wrong ??= new ApplyReport(plan.Backend) { Count = plan.Count }).Add(Outside(plan[i]));
            }
            else if (!there.SequenceEqual(plan.OldBytesOf(i, oldScratch)) && !there.SequenceEqual(plan.NewBytesOf(i, newScratch))
                && !plan.IsFromPredecessor(i, there))
            {
                (wrong ??= new ApplyReport(plan.Backend) { Count = plan.Count }).Add(UnexpectedSite.Unexpected(plan[i], there));
            }
        }

        return wrong;
    }

    /// <summary>Writes all sites that hold other bytes than the wanted ones, where every site holds those it is changed from; how many.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static unsafe int WriteMasked<TTo>(PatchPlan plan, CodeImage image)
        where TTo : struct, IDirection
    {
        int written = 0;
        var window = new Window(image);
        ReadOnlySpan<PlanEntry> entries = plan.Entries;
        ref OldForm olds = ref MemoryMarshal.GetArrayDataReference(plan.Olds);
        ref NewForm news = ref MemoryMarshal.GetArrayDataReference(plan.News);
        for (int i = 0; i < entries.Length; i++)
        {
            VectorWindow near = window.Vectors;
            fixed (byte* first = window.Bytes)
            {
                ulong start = window.Start;
                for (; i < entries.Length; i++)
                {
                    ref readonly PlanEntry entry = ref entries[i];
                    if (!near.Holds(entry.Address) || entry.IsOverflow)
                    {
                        break;
                    }

                    // The store touches the site's bytes and no others; none where the site keeps its bytes.
                    ref readonly NewForm form = ref Unsafe.Add(ref news, entry.New);
                    Vector128<byte> wanted = TTo.ToNew ? form.At(entry.Address) : Unsafe.Add(ref olds, entry.Old).With(entry.Field);
                    Avx512BW.VL.MaskStore(first + (entry.Address - start), form.Written, wanted);
                    written += form.Changes;
                }
            }

            if (i < entries.Length)
            {
                written += WriteOne<TTo>(plan, i, ref window);
            }
        }

        return written;
    }

    /// <summary>Writes all sites that hold other bytes than the wanted ones, whatever each holds; how many.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static int WriteWhereDifferent<TTo>(PatchPlan plan, CodeImage image)
        where TTo : struct, IDirection
    {
        // What is to be stored is collected for a block of sites, then stored. Collecting has no branch on whether a site needs it, which in a mixed
        // image nobody could predict, and its loads never wait for the store of the site before, which often reaches into the next one's 16 bytes.
        Span<Vector128<byte>> blended = stackalloc Vector128<byte>[BlockSize];
        Span<ulong> addresses = stackalloc ulong[BlockSize];
        ref Vector128<byte> firstBlended = ref MemoryMarshal.GetReference(blended);
        ref ulong firstAddress = ref MemoryMarshal.GetReference(addresses);
        ref OldForm olds = ref MemoryMarshal.GetArrayDataReference(plan.Olds);
        ref NewForm news = ref MemoryMarshal.GetArrayDataReference(plan.News);
        var window = new Window(image);
        ReadOnlySpan<PlanEntry> entries = plan.Entries;
        int written = 0;
        int i = 0;
        while (i < entries.Length)
        {
            VectorWindow near = window.Vectors;
            int count = 0;
            int end = Math.Min(entries.Length, i + BlockSize);
            for (; i < end; i++)
            {
                ref readonly PlanEntry entry = ref entries[i];
                if (!near.Holds(entry.Address) || entry.IsOverflow)
                {
                    break;
                }

                ref readonly OldForm old = ref Unsafe.Add(ref olds, entry.Old);
                Vector128<byte> there = Vector128.LoadUnsafe(ref near.At(entry.Address));
                Vector128<byte> wanted = BytesOf<TTo>(entry, old, ref news);
                // count is at most the number of sites seen in this block, less than BlockSize.
                Unsafe.Add(ref firstBlended, count) = Vector128.AndNot(there, old.Whole) | wanted;
                Unsafe.Add(ref firstAddress, count) = entry.Address;
                // Never store the same bytes again: an emulator that watches its code pages pays dearly for each store.
                count += 1 - AsNumber((there & old.Whole) == wanted);
            }

            // Bytes behind a site are stored back as they were read. That is right because sites are stored in order of address: where
            // they belong to a later site, that one's store follows. Nobody else runs or writes the image now; a blend would be just as
            // wrong as any other store if somebody did.
            for (int k = 0; k < count; k++)
            {
                Vector128.StoreUnsafe(Unsafe.Add(ref firstBlended, k), ref near.At(Unsafe.Add(ref firstAddress, k)));
            }

            written += count;
            if (i < end)
            {
                written += WriteOne<TTo>(plan, i, ref window);
                i++;
            }
        }

        return written;
    }

    /// <summary>Writes a site at the end of a segment, one in the overflow, or the first of a segment; 1 where it was written.</summary>
    private static int WriteOne<TTo>(PatchPlan plan, int index, ref Window window)
        where TTo : struct, IDirection
    {
        Span<byte> scratch = stackalloc byte[SiteVector.MaxLength];
        ReadOnlySpan<byte> wanted = TTo.ToNew ? plan.NewBytesOf(index, scratch) : plan.OldBytesOf(index, scratch);
        window.Reach(plan.Entries[index].Address, wanted.Length, out Span<byte> there); // as in the pass before
        if (there.SequenceEqual(wanted))
        {
            return 0;
        }

        wanted.CopyTo(there);
        return 1;
    }

    // A bool is one byte, 0 or 1 where managed code made it.
    private static int AsNumber(bool value) => Unsafe.BitCast<bool, byte>(value);

    private static PatchDiagnostic Outside(SiteDecision site) =>
        PatchDiagnostic.Error(DiagnosticCodes.PlanOutsideImage, $"the site of {site.Label} is not in the image") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Help = "Give the image the plan was made for.",
        };

    private readonly struct Forward : IDirection
    {
        public static bool ToNew => true;
    }

    private readonly struct Back : IDirection
    {
        public static bool ToNew => false;
    }

    /// <summary>The segment the walk is in; entries are in order of address, so it moves rarely.</summary>
    private ref struct Window(CodeImage image)
    {
        private readonly CodeImage _image = image;
        private Span<byte> _bytes;
        private ulong _start;

        public readonly VectorWindow Vectors => new(_bytes, _start);

        public readonly Span<byte> Bytes => _bytes;

        public readonly ulong Start => _start;

        /// <summary>The bytes of a site, in the segment the walk is in or in another that it goes to.</summary>
        public bool Reach(ulong address, int length, out Span<byte> there)
        {
            if (!Contains(address, length))
            {
                if (_image.Find(address, length) is not CodeSegment segment)
                {
                    there = default;
                    return false;
                }

                _bytes = segment.Bytes.Span;
                _start = segment.Address.Value;
            }

            there = _bytes.Slice((int)(address - _start), length);
            return true;
        }

        private readonly bool Contains(ulong address, int length) =>
            address >= _start && address - _start <= (ulong)_bytes.Length && (ulong)length <= (ulong)_bytes.Length - (address - _start);
    }
}

/// <summary>What plans write to a log: one line for each batch. Event ids are stable.</summary>
internal static partial class PlanLog
{
    [LoggerMessage(EventId = 1100, EventName = "PlanApplied", Level = LogLevel.Information,
        Message = "{What} plan for {Backend}: {Written} sites written, {AlreadyThere} already there")]
    public static partial void Applied(ILogger logger, string what, string backend, int written, int alreadyThere);

    [LoggerMessage(EventId = 1101, EventName = "PlanRefused", Level = LogLevel.Warning,
        Message = "refused to {What} the plan for {Backend}, nothing written; {Count} findings, the first: {First}")]
    public static partial void Refused(ILogger logger, string what, string backend, int count, PatchDiagnostic first);

    [LoggerMessage(EventId = 1102, EventName = "PlanVerified", Level = LogLevel.Information,
        Message = "verified plan for {Backend}: {Patched} sites patched, {Original} original, {Others} other")]
    public static partial void Verified(ILogger logger, string backend, int patched, int original, int others);
}
