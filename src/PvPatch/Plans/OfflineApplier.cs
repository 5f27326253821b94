using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>
/// The one place that writes an image nobody is running. Two passes: the first reads every site and writes nothing, so that a
/// refused plan leaves no trace; the second writes. Chooses no byte.
/// </summary>
internal static class OfflineApplier
{
    private const int BlockSize = 128;

    /// <summary>Whether a plan goes to its new bytes or back to the old ones; a type, so that each way gets a loop of its own.</summary>
    private interface IDirection
    {
        public static abstract bool ToNew { get; }
    }

    public static bool TryRun(PatchPlan plan, CodeImage image, bool toNew, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics) =>
        toNew ? TryRun<Forward>(plan, image, out result, out diagnostics) : TryRun<Back>(plan, image, out result, out diagnostics);

    private static bool TryRun<TDirection>(PatchPlan plan, CodeImage image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics)
        where TDirection : struct, IDirection
    {
        result = default;
        diagnostics = [];
        if (image.Bitness != plan.Bitness)
        {
            diagnostics = [PatchDiagnostic.Error(DiagnosticCodes.WrongBitness, "the image's bitness is not the plan's") with { Found = $"{image.Bitness}", Expected = $"{plan.Bitness}" }];
            PlanLog.Refused(plan.Logger, TDirection.ToNew ? "apply" : "revert", plan.Backend, 1, diagnostics[0]);
            return false;
        }

        int toWrite = Check<TDirection>(plan, image, out DiagnosticList? wrong);
        if (wrong is not null)
        {
            diagnostics = wrong.ToList();
            PlanLog.Refused(plan.Logger, TDirection.ToNew ? "apply" : "revert", plan.Backend, diagnostics.Count, diagnostics[0]);
            return false;
        }

        if (toWrite > 0)
        {
            Write<TDirection>(plan, image);
        }

        result = new ApplyResult(toWrite, plan.Count - toWrite);
        PlanLog.Applied(plan.Logger, TDirection.ToNew ? "applied" : "reverted", plan.Backend, result.Written, result.AlreadyThere);
        return true;
    }

    /// <summary>How many sites are to be written; findings where one holds unknown bytes or is not in the image.</summary>
    /// <remarks>Optimised when it is first called: a plan is most often applied once, and the loop is over before a second tier would help.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static int Check<TDirection>(PatchPlan plan, CodeImage image, out DiagnosticList? wrong)
        where TDirection : struct, IDirection
    {
        wrong = null;
        int toWrite = 0;
        var window = new Window(image);
        ReadOnlySpan<PlanEntry> entries = plan.Entries;
        ref Vector128<byte> masks = ref MemoryMarshal.GetArrayDataReference(PlanEntry.Masks);
        int i = 0;
        while (i < entries.Length)
        {
            VectorWindow near = window.Vectors; // a copy in registers: the window itself is handed on by reference
            for (; i < entries.Length; i++)
            {
                ref readonly PlanEntry entry = ref entries[i];
                if (!near.Holds(entry.Address) || !entry.IsInPlace)
                {
                    break;
                }

                // No branch on which of the two is there: in a mixed image nobody could predict it.
                Vector128<byte> there = Vector128.LoadUnsafe(ref near.At(entry.Address)) & Unsafe.Add(ref masks, entry.Length);
                bool isWanted = there == (TDirection.ToNew ? entry.New : entry.Old);
                bool isOther = there == (TDirection.ToNew ? entry.Old : entry.New);
                if (!(isWanted | isOther))
                {
                    break;
                }

                toWrite += 1 - AsNumber(isWanted);
            }

            if (i < entries.Length)
            {
                toWrite += CheckSlowly<TDirection>(plan, i, ref window, ref wrong);
                i++;
            }
        }

        return toWrite;
    }

    /// <summary>What <see cref="Check"/> does, for a site at the end of a segment, a long one, the first of a segment, and a bad one; 1 where it is to be written.</summary>
    private static int CheckSlowly<TDirection>(PatchPlan plan, int index, ref Window window, ref DiagnosticList? wrong)
        where TDirection : struct, IDirection
    {
        ref readonly PlanEntry entry = ref plan.Entries[index];
        if (!window.Contains(entry.Address, entry.Length) && !window.MoveTo(entry.Address, entry.Length))
        {
            (wrong ??= new DiagnosticList()).Add(Outside(plan[index]));
            return 0;
        }

        ReadOnlySpan<byte> there = window.Slice(entry.Address, entry.Length);
        if (there.SequenceEqual(TDirection.ToNew ? plan.NewBytesOf(index) : plan.OldBytesOf(index)))
        {
            return 0;
        }

        if (!there.SequenceEqual(TDirection.ToNew ? plan.OldBytesOf(index) : plan.NewBytesOf(index)) && !plan.IsFromPredecessor(index, there))
        {
            (wrong ??= new DiagnosticList()).Add(UnexpectedSite.Unexpected(plan[index], there));
        }

        return 1;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Write<TDirection>(PatchPlan plan, CodeImage image)
        where TDirection : struct, IDirection
    {
        // What is to be stored is collected for a block of sites, then stored. Collecting has no branch on whether a site needs it (see
        // Check), and its loads never wait for the store of the site before, which often reaches into the next one's 16 bytes.
        Span<Vector128<byte>> blended = stackalloc Vector128<byte>[BlockSize];
        Span<ulong> addresses = stackalloc ulong[BlockSize];
        ref Vector128<byte> firstBlended = ref MemoryMarshal.GetReference(blended);
        ref ulong firstAddress = ref MemoryMarshal.GetReference(addresses);
        ref Vector128<byte> masks = ref MemoryMarshal.GetArrayDataReference(PlanEntry.Masks);
        var window = new Window(image);
        ReadOnlySpan<PlanEntry> entries = plan.Entries;
        int i = 0;
        while (i < entries.Length)
        {
            VectorWindow near = window.Vectors;
            int count = 0;
            int end = Math.Min(entries.Length, i + BlockSize);
            for (; i < end; i++)
            {
                ref readonly PlanEntry entry = ref entries[i];
                if (!near.Holds(entry.Address) || !entry.IsInPlace)
                {
                    break;
                }

                Vector128<byte> mask = Unsafe.Add(ref masks, entry.Length);
                Vector128<byte> there = Vector128.LoadUnsafe(ref near.At(entry.Address));
                Vector128<byte> wanted = TDirection.ToNew ? entry.New : entry.Old;
                // count is at most the number of sites seen in this block, less than BlockSize.
                Unsafe.Add(ref firstBlended, count) = (there & ~mask) | wanted;
                Unsafe.Add(ref firstAddress, count) = entry.Address;
                // Never store the same bytes again: an emulator that watches its code pages pays dearly for each store.
                count += 1 - AsNumber((there & mask) == wanted);
            }

            // Bytes behind a site are stored back as they were read. That is right because sites are stored in order of address: where
            // they belong to a later site, that one's store follows. Nobody else runs or writes the image now; a blend would be just as
            // wrong as any other store if somebody did.
            for (int k = 0; k < count; k++)
            {
                Vector128.StoreUnsafe(Unsafe.Add(ref firstBlended, k), ref near.At(Unsafe.Add(ref firstAddress, k)));
            }

            if (i < end)
            {
                i += WriteSlowly<TDirection>(plan, i, ref window);
            }
        }
    }

    /// <summary>Moves the window to a site, or writes the site where it is long or at the end of its segment. How many sites were written.</summary>
    private static int WriteSlowly<TDirection>(PatchPlan plan, int index, ref Window window)
        where TDirection : struct, IDirection
    {
        ref readonly PlanEntry entry = ref plan.Entries[index];
        if (!window.Contains(entry.Address, entry.Length))
        {
            window.MoveTo(entry.Address, entry.Length);
        }

        if (window.Vectors.Holds(entry.Address) && entry.IsInPlace)
        {
            return 0;
        }

        ReadOnlySpan<byte> wanted = TDirection.ToNew ? plan.NewBytesOf(index) : plan.OldBytesOf(index);
        Span<byte> there = window.Slice(entry.Address, entry.Length);
        if (!there.SequenceEqual(wanted))
        {
            wanted.CopyTo(there);
        }

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

        public readonly bool Contains(ulong address, int length) =>
            address >= _start && address - _start <= (ulong)_bytes.Length && (ulong)length <= (ulong)_bytes.Length - (address - _start);

        public bool MoveTo(ulong address, int length)
        {
            if (_image.Find(address, length) is not CodeSegment segment)
            {
                return false;
            }

            _bytes = segment.Bytes.Span;
            _start = segment.Address.Value;
            return true;
        }

        public readonly Span<byte> Slice(ulong address, int length) => _bytes.Slice((int)(address - _start), length);
    }
}
