using System.Buffers.Binary;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Properties;

/// <summary>Where written branches go, worked out from the bytes alone.</summary>
internal static class Branches
{
    /// <summary>
    /// The target of the 5-byte call or jump at an offset: the end of the instruction plus rel32, in 32-bit code modulo 4 GiB.
    /// </summary>
    public static VirtualAddress Target(ReadOnlySpan<byte> code, VirtualAddress address, int offset, int bitness)
    {
        ulong end = address.Value + (ulong)offset + 5;
        ulong target = unchecked(end + (ulong)(long)BinaryPrimitives.ReadInt32LittleEndian(code[(offset + 1)..]));
        return bitness == 64 ? target : (uint)target;
    }

    /// <summary>The offset of the only direct call or jump among instructions, as the second reader sees them.</summary>
    public static int CallOffset(ReadOnlySpan<byte> code, VirtualAddress address, int bitness) =>
        (int)(CapstoneReader.Disassemble(code, address.Value, bitness).Single(static i =>
            i.Text.StartsWith("call 0x", StringComparison.Ordinal) || i.Text.StartsWith("jmp 0x", StringComparison.Ordinal))
            .Address - address.Value);
}
