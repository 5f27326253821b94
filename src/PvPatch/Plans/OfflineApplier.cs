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
    /// <summary>What a site holds, seen from where it shall go.</summary>
    private enum Found
    {
        Wanted,
        Other,
        Unknown,
    }

    public static bool TryRun(PatchPlan plan, CodeImage image, bool toNew, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        result = default;
        var wrong = new DiagnosticList();
        int toWrite = Check(plan, image, toNew, wrong);
        diagnostics = wrong.ToList();
        if (wrong.HasErrors)
        {
            PlanLog.Refused(plan.Logger, toNew ? "apply" : "revert", plan.Backend, diagnostics.Count, diagnostics[0]);
            return false;
        }

        if (toWrite > 0)
        {
            Write(plan, image, toNew);
        }

        result = new ApplyResult(toWrite, plan.Count - toWrite);
        PlanLog.Applied(plan.Logger, toNew ? "applied" : "reverted", plan.Backend, result.Written, result.AlreadyThere);
        return true;
    }

    private static int Check(PatchPlan plan, CodeImage image, bool toNew, DiagnosticList wrong)
    {
        int toWrite = 0;
        var window = new Window(image);
        PlanEntry[] entries = plan.Entries;
        ref readonly Vector128<byte> masks = ref MemoryMarshal.GetArrayDataReference(PlanEntry.Masks);
        for (int i = 0; i < entries.Length; i++)
        {
            ref readonly PlanEntry entry = ref entries[i];
            if (!window.Contains(entry.Address, entry.Length) && !window.MoveTo(entry.Address, entry.Length))
            {
                wrong.Add(Outside(plan[i]));
                continue;
            }

            if (window.HoldsVector(entry.Address) && entry.IsInPlace)
            {
                Vector128<byte> mask = Unsafe.Add(ref Unsafe.AsRef(in masks), entry.Length);
                Vector128<byte> there = Vector128.LoadUnsafe(ref window.At(entry.Address)) & mask;
                Vector128<byte> wanted = toNew ? entry.New : entry.Old;
                Vector128<byte> other = toNew ? entry.Old : entry.New;
                if (there == wanted)
                {
                    continue;
                }

                if (there == other)
                {
                    toWrite++;
                    continue;
                }
            }

            switch (CheckSlowly(plan, i, window.Slice(entry.Address, entry.Length), toNew))
            {
                case Found.Other:
                    toWrite++;
                    break;
                case Found.Unknown:
                    wrong.Add(UnexpectedSite.Unexpected(plan[i], window.Slice(entry.Address, entry.Length)));
                    break;
            }
        }

        return toWrite;
    }

    private static Found CheckSlowly(PatchPlan plan, int index, ReadOnlySpan<byte> there, bool toNew)
    {
        ReadOnlySpan<byte> wanted = toNew ? plan.NewBytesOf(index) : plan.OldBytesOf(index);
        ReadOnlySpan<byte> other = toNew ? plan.OldBytesOf(index) : plan.NewBytesOf(index);
        return there.SequenceEqual(wanted) ? Found.Wanted
            : there.SequenceEqual(other) || plan.IsFromPredecessor(index, there) ? Found.Other
            : Found.Unknown;
    }

    private static void Write(PatchPlan plan, CodeImage image, bool toNew)
    {
        var window = new Window(image);
        PlanEntry[] entries = plan.Entries;
        ref readonly Vector128<byte> masks = ref MemoryMarshal.GetArrayDataReference(PlanEntry.Masks);
        for (int i = 0; i < entries.Length; i++)
        {
            ref readonly PlanEntry entry = ref entries[i];
            if (!window.Contains(entry.Address, entry.Length))
            {
                window.MoveTo(entry.Address, entry.Length);
            }

            if (window.HoldsVector(entry.Address) && entry.IsInPlace)
            {
                // Blend: bytes behind the site are stored back as they are. Safe because nobody else runs or writes the image now,
                // and just as wrong as any other store if somebody does.
                ref byte at = ref window.At(entry.Address);
                Vector128<byte> mask = Unsafe.Add(ref Unsafe.AsRef(in masks), entry.Length);
                Vector128<byte> wanted = toNew ? entry.New : entry.Old;
                Vector128<byte> there = Vector128.LoadUnsafe(ref at);
                Vector128<byte> blended = (there & ~mask) | wanted;
                if (blended != there)
                {
                    // Never store the same bytes again: an emulator that watches its code pages pays dearly for each store.
                    Vector128.StoreUnsafe(blended, ref at);
                }
            }
            else
            {
                WriteSlowly(toNew ? plan.NewBytesOf(i) : plan.OldBytesOf(i), window.Slice(entry.Address, entry.Length));
            }
        }
    }

    private static void WriteSlowly(ReadOnlySpan<byte> wanted, Span<byte> there)
    {
        if (!there.SequenceEqual(wanted))
        {
            wanted.CopyTo(there);
        }
    }

    private static PatchDiagnostic Outside(SiteDecision site) =>
        PatchDiagnostic.Error(DiagnosticCodes.PlanOutsideImage, $"the site of {site.Label} is not in the image") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Help = "Give the image the plan was made for.",
        };

    /// <summary>The segment the walk is in; entries are in order of address, so it moves rarely.</summary>
    private ref struct Window(CodeImage image)
    {
        private readonly CodeImage _image = image;
        private Span<byte> _bytes;
        private ulong _start;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
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

        /// <summary>Whether 16 bytes can be read and written from an address inside the window.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public readonly bool HoldsVector(ulong address) => (ulong)_bytes.Length - (address - _start) >= 16;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public readonly ref byte At(ulong address) => ref Unsafe.Add(ref MemoryMarshal.GetReference(_bytes), (nint)(address - _start));

        public readonly Span<byte> Slice(ulong address, int length) => _bytes.Slice((int)(address - _start), length);
    }
}
