using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Live;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// What a processor that forgets what it fetched only at barriers may have seen: the memory at each, and what changed between one and the
/// next. Says where that breaks a rule of docs/live-patching.md.
/// </summary>
internal static class BarrierHistory
{
    private const int Piece = 16; // what is put out of line begins at a multiple of this

    /// <summary>The rules that are broken; none where all is well.</summary>
    /// <param name="spy">The barriers since it was restarted.</param>
    /// <param name="sites">The sites to look at.</param>
    /// <param name="slots">Addresses of slots.</param>
    /// <param name="live">Whether threads may have been in the sites: then each step counts, else the end alone.</param>
    public static List<string> Faults(SpyPlatform spy, IReadOnlyList<LiveSite> sites, IReadOnlyList<ulong> slots, bool live)
    {
        var faults = new List<string>();
        if (spy.Images[^1].FirstDifference(spy.Now()) is > 0 and ulong late)
        {
            faults.Add($"0x{late:x} was written behind the last barrier");
        }

        List<MemoryImage> images = spy.Images;
        for (int i = 1; live && i < images.Count; i++)
        {
            foreach (LiveSite site in sites)
            {
                Check(images[i - 1], images[i], site.Address.Value, site.Budget, i, faults);
            }

            foreach (ulong slot in slots)
            {
                ulong function = BinaryPrimitives.ReadUInt64LittleEndian(images[i].At(slot, 8));
                if (function != BinaryPrimitives.ReadUInt64LittleEndian(images[i - 1].At(slot, 8)))
                {
                    CheckTarget(images[i - 1], images[i], function, $"slot 0x{slot:x}", faults);
                }
            }
        }

        return faults;
    }

    private static void Check(MemoryImage before, MemoryImage after, ulong address, int length, int step, List<string> faults)
    {
        ReadOnlySpan<byte> old = before.At(address, length);
        ReadOnlySpan<byte> now = after.At(address, length);
        if (old.SequenceEqual(now))
        {
            return;
        }

        bool headSame = old[..2].SequenceEqual(now[..2]);
        bool tailSame = old[2..].SequenceEqual(now[2..]);
        bool guarded = old[0] == 0xeb;
        bool guards = now[0] == 0xeb;
        bool oneStore = (int)(address & 7) + length <= 8 || (int)(address & 15) + length <= 16;
        bool whole = oneStore && IsOne(old, address) && IsOne(now, address) && !guarded && !guards;
        bool step1 = tailSame && guards && !guarded;
        bool step2 = headSame && guarded;
        bool step3 = tailSame && guarded && !guards;
        if (!whole && !step1 && !step2 && !step3)
        {
            faults.Add(
                $"step {step}: 0x{address:x} goes from {Convert.ToHexString(old)} to {Convert.ToHexString(now)} without a barrier between");
        }

        if (!guards && TargetOf(now, address) is ulong target)
        {
            CheckTarget(before, after, target, $"site 0x{address:x}", faults);
        }
    }

    /// <summary>What is led to stood there at the barrier before, or nothing ever stood there.</summary>
    private static void CheckTarget(MemoryImage before, MemoryImage after, ulong target, string from, List<string> faults)
    {
        if (!after.Contains(target))
        {
            return;
        }

        ReadOnlySpan<byte> was = before.At(target, Piece);
        if (!was.SequenceEqual(after.At(target, Piece)) && was.ContainsAnyExcept((byte)0))
        {
            faults.Add($"{from} leads to 0x{target:x}, where other code stood at the barrier before");
        }
    }

    private static bool IsOne(ReadOnlySpan<byte> bytes, ulong address) => Decode(bytes, address).Length == bytes.Length;

    private static ulong? TargetOf(ReadOnlySpan<byte> bytes, ulong address)
    {
        Instruction instruction = Decode(bytes, address);
        return instruction.IsCallNear || instruction.IsJmpShortOrNear ? instruction.NearBranchTarget : null;
    }

    private static Instruction Decode(ReadOnlySpan<byte> bytes, ulong address) => Decoder.Create(64, bytes.ToArray(), address).Decode();
}
