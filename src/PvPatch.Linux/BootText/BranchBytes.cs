using System.Buffers.Binary;
using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>Calls and jumps with a 32-bit distance, made and read.</summary>
internal static class BranchBytes
{
    /// <summary>e8: call rel32.</summary>
    public const byte Call = 0xe8;

    /// <summary>e9: jmp rel32.</summary>
    public const byte Jump = 0xe9;

    /// <summary>eb: jmp rel8.</summary>
    public const byte ShortJump = 0xeb;

    /// <summary>c3 cc cc cc cc: ret, and int3 where nothing runs.</summary>
    public static ReadOnlySpan<byte> Return => [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];

    /// <summary>0f 1f 44 00 00: nopl 0(%rax,%rax), one instruction.</summary>
    public static ReadOnlySpan<byte> Nop5 => [0x0f, 0x1f, 0x44, 0x00, 0x00];

    /// <summary>
    /// 66 66 66 66 90: the nop of 5 bytes that AMD K8 decodes as one instruction; entry 9 of the kernel's table (to 5.12).
    /// </summary>
    public static ReadOnlySpan<byte> AtomicNop5 => [0x66, 0x66, 0x66, 0x66, 0x90];

    /// <summary>66 90: xchg %ax,%ax.</summary>
    public static ReadOnlySpan<byte> Nop2 => [0x66, 0x90];

    /// <summary>Makes the 5 bytes of a branch.</summary>
    /// <param name="opcode">Its opcode: <see cref="Call"/> or <see cref="Jump"/>.</param>
    /// <param name="address">Where it stands.</param>
    /// <param name="target">Where it goes.</param>
    /// <param name="bytes">The bytes: 5.</param>
    /// <returns>Whether the target is in reach.</returns>
    public static bool TryMake(byte opcode, VirtualAddress address, VirtualAddress target, Span<byte> bytes)
    {
        bytes[0] = opcode;
        bool reaches = Displacement.TryGet(address + 5, target, 64, out int displacement);
        BinaryPrimitives.WriteInt32LittleEndian(bytes[1..], displacement);
        return reaches;
    }

    /// <summary>The target of the branch that 5 bytes are.</summary>
    public static VirtualAddress Target(VirtualAddress address, ReadOnlySpan<byte> bytes) =>
        address + 5 + BinaryPrimitives.ReadInt32LittleEndian(bytes[1..]);
}
