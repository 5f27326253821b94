using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Text;

/// <summary>
/// The inline interrupt operations that Xen's own patch function takes from the kernel's code (<c>xen_patch</c>, 2.6.23 to about 4.13):
/// between
/// <c>xen_irq_disable_direct</c> and <c>xen_irq_disable_direct_end</c> lie the bytes themselves. They tell where vcpu_info is and which of
/// the forms the kernel has.
/// </summary>
internal static class XenDirectTemplates
{
    /// <summary>The patch function; kernels without it patch a Xen guest by the default rule.</summary>
    public const string Hook = "xen_patch";

    /// <summary>Reads the templates.</summary>
    /// <param name="elf">The image.</param>
    /// <param name="targets">Its functions.</param>
    /// <param name="bodies">The source of the bodies.</param>
    /// <returns>
    /// Whether there are any: not in kernels whose templates only hold a place (64-bit, 2.6.27 to 2.6.29; they never place vcpu_info), nor
    /// where they are of an unknown form.
    /// </returns>
    public static bool TryRead(ElfImage elf, SlotTargets targets, [NotNullWhen(true)] out XenDirectBodies? bodies)
    {
        bodies = null;
        if (!TryReadTemplate(elf, targets, "xen_irq_disable_direct", out ReadOnlySpan<byte> disable)
            || !TryReadMask(elf.Bitness, disable, out uint mask, out bool perCpu)
            || mask == 0
            || !TryReadTemplate(elf, targets, "xen_irq_enable_direct", out ReadOnlySpan<byte> enable)
            || !TryReadTemplate(elf, targets, "xen_restore_fl_direct", out ReadOnlySpan<byte> restore))
        {
            return false;
        }

        XenDirectForm form = First(elf.Bitness, enable).Mnemonic == Mnemonic.And ? XenDirectForm.AndWord
            : JumpsOnEqual(elf.Bitness, restore) ? XenDirectForm.StoreAndTest
            : XenDirectForm.StoreAndTestFixed;
        if (form == XenDirectForm.AndWord && elf.Bitness == 64)
        {
            return false;
        }

        // 64-bit operands are extended by sign.
        ulong info = elf.Bitness == 64 ? unchecked((ulong)((int)mask - 1)) : mask - 1;
        bodies = new XenDirectBodies { VcpuInfo = info, Form = form, PerCpu = perCpu };
        return true;
    }

    private static bool TryReadTemplate(ElfImage elf, SlotTargets targets, string name, out ReadOnlySpan<byte> template)
    {
        const long Longest = 64;
        template = default;
        if (targets.Find(name) is not VirtualAddress start || targets.Find(name + "_end") is not VirtualAddress end || end <= start
            || end - start > Longest
            || !elf.TryGetBytes(start, (int)(end - start), out Memory<byte> bytes))
        {
            return false;
        }

        template = bytes.Span;
        return true;
    }

    /// <summary>mov byte [mask],1: 64 c6 05 a32 01, without fs in kernels for one CPU; 64-bit 65 c6 04 25 a32 01.</summary>
    private static bool TryReadMask(int bitness, ReadOnlySpan<byte> disable, out uint mask, out bool perCpu)
    {
        perCpu = !disable.IsEmpty && disable[0] == (bitness == 64 ? 0x65 : 0x64);
        ReadOnlySpan<byte> mov = perCpu ? disable[1..] : disable;
        ReadOnlySpan<byte> opcode = bitness == 64 ? [0xc6, 0x04, 0x25] : [0xc6, 0x05];
        bool isMov = mov.Length == opcode.Length + 5 && mov.StartsWith(opcode) && mov[^1] == 1;
        mask = isMov ? BinaryPrimitives.ReadUInt32LittleEndian(mov[opcode.Length..]) : 0;
        return isMov;
    }

    private static Instruction First(int bitness, ReadOnlySpan<byte> code)
    {
        var decoder = Decoder.Create(bitness, code.ToArray());
        return decoder.Decode();
    }

    private static bool JumpsOnEqual(int bitness, ReadOnlySpan<byte> code)
    {
        var decoder = Decoder.Create(bitness, code.ToArray());
        while (decoder.IP < (ulong)code.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid || instruction.FlowControl == FlowControl.ConditionalBranch)
            {
                return instruction.Mnemonic == Mnemonic.Je;
            }
        }

        return false;
    }
}
