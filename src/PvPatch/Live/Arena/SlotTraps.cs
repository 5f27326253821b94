using System.Buffers.Binary;

namespace PvPatch.Live;

/// <summary>
/// What slots without an operation hold: a trap for each, so that where a machine dies shows what was called.
/// </summary>
/// <remarks>
/// <code>
/// 0f 0b    ud2
/// 2a 00    the slot's index, which is never run; to be read from a core dump behind the instruction pointer
/// </code>
/// </remarks>
internal static class SlotTraps
{
    private const int Length = 4;

    /// <summary>Bytes for the traps of so many slots.</summary>
    public static int LengthFor(int slots) => Math.Max(1, slots) * Length;

    public static VirtualAddress AddressOf(VirtualAddress traps, int slot) => traps + slot * Length;

    /// <summary>Writes the traps of as many slots as there is room for.</summary>
    public static void Write(Span<byte> destination)
    {
        for (int at = 0; at < destination.Length; at += Length)
        {
            destination[at] = 0x0f;
            destination[at + 1] = 0x0b;
            BinaryPrimitives.WriteUInt16LittleEndian(destination[(at + 2)..], (ushort)(at / Length));
        }
    }

    /// <summary>The slot whose trap stands at an address.</summary>
    public static bool TryFind(VirtualAddress traps, int slots, VirtualAddress address, out int slot)
    {
        long offset = address - traps;
        slot = (int)(offset / Length);
        return offset >= 0 && offset < (long)slots * Length && offset % Length == 0;
    }
}
