using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>What stands at a site before it is patched.</summary>
internal enum SiteForm
{
    /// <summary>Whole instructions, one of them an indirect call.</summary>
    IndirectCall,

    /// <summary>Whole instructions, one of them an indirect jump.</summary>
    IndirectJump,

    /// <summary>Whole instructions, none of them an indirect call or jump.</summary>
    OtherCode,

    /// <summary>Bytes that are not whole instructions, or do not end where the site ends.</summary>
    NotCode,
}

/// <summary>
/// Recognises what stands at a site. Iced decodes; what it found to be an indirect call or jump is remembered without the call's
/// displacement, which decides neither the length of an instruction nor its kind, and nearly all sites of a table are one of a few such
/// forms.
/// </summary>
internal sealed class SiteFormReader
{
    /// <summary>Places for each length. A table with more forms of one length than that is decoded more often, and no worse.</summary>
    public const int Ways = 4;

    private readonly int _bitness;
    private readonly PlanForms _forms;
    private readonly byte[] _bytes = new byte[PatchSite.MaxBudget + SiteBytes.LongestInstruction];
    private readonly ByteArrayCodeReader _reader;
    private readonly Decoder _decoder;
    private readonly OldForm[] _known = new OldForm[(SiteBytes.MaxLength + 1) * Ways];
    private readonly int[] _nextWay = new int[SiteBytes.MaxLength + 1];
    private readonly Dictionary<(Vector128<byte> Mask, Vector128<byte> Bytes), OldForm> _all = [];

    /// <summary>Makes a reader.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="forms">Where it puts the forms it finds; nobody else's where there is none.</param>
    public SiteFormReader(int bitness, PlanForms? forms = null)
    {
        _bitness = bitness;
        _forms = forms ?? new PlanForms();
        _reader = new ByteArrayCodeReader(_bytes);
        _decoder = Decoder.Create(bitness, _reader);
        // A form that has not been seen must not be mistaken for one: no bytes under a mask of nothing equal all ones.
        _known.AsSpan().Fill(new OldForm { Bytes = Vector128<byte>.AllBitsSet });
    }

    /// <summary>The forms by which sites are recognised, <see cref="Ways"/> for each length; none for length 0.</summary>
    public OldForm[] Known => _known;

    /// <summary>The form of a site, where it is an indirect call or jump of a form read before; else a null reference.</summary>
    /// <param name="bytes">16 bytes from the site's first on, whatever stands behind it.</param>
    /// <param name="length">How many of them are the site's, 1 to 16.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref readonly OldForm Find(Vector128<byte> bytes, int length)
    {
        ref OldForm form = ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_known), length * Ways);
        if (form.Matches(bytes))
        {
            return ref form;
        }

        return ref FindOther(bytes, length);
    }

    /// <summary>The address a call or jump of a known form reads its target from; 0 where it is not in the instruction.</summary>
    /// <param name="form">The form.</param>
    /// <param name="field">What stands in its hole.</param>
    /// <param name="address">The site's run address.</param>
    public ulong SlotAddress(in OldForm form, int field, ulong address) =>
        form.FieldBase < 0 ? 0
        : form.FieldBase > 0 ? unchecked(address + (uint)form.FieldBase + (ulong)field)
        : _bitness == 64 ? unchecked((ulong)field)
        : (uint)field;

    /// <summary>Reads a site.</summary>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="slotAddress">
    /// The address the call or jump reads its target from; 0 where it is not in the instruction (register relative).
    /// </param>
    public SiteForm Read(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress)
    {
        slotAddress = 0;
        SiteForm form = SiteForm.OtherCode;
        (Instruction Call, ConstantOffsets Offsets, int Start) found = default;
        // Behind the site stands something from before: an instruction that reads it does not end where the site ends, and that is what is
        // asked.
        bytes.CopyTo(_bytes);
        _reader.Position = 0;
        _decoder.IP = address;
        while (_reader.Position < bytes.Length)
        {
            int start = _reader.Position;
            _decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid || _reader.Position > bytes.Length)
            {
                return SiteForm.NotCode;
            }

            bool call = instruction.IsCallNearIndirect;
            if ((call || instruction.IsJmpNearIndirect) && instruction.Op0Kind == OpKind.Memory
                && HasOrdinaryPrefixes(bytes[start.._reader.Position]))
            {
                form = call ? SiteForm.IndirectCall : SiteForm.IndirectJump;
                slotAddress = instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
                    : instruction.MemoryBase == Register.None && instruction.MemoryIndex == Register.None ? instruction.MemoryDisplacement64
                    : 0;
                found = (instruction, _decoder.GetConstantOffsets(instruction), start);
            }
        }

        if (form != SiteForm.OtherCode && bytes.Length <= SiteBytes.MaxLength)
        {
            Remember(bytes, found.Call, found.Offsets, found.Start);
        }

        return form;
    }

    /// <summary>
    /// Reads a site whose code is a direct call or jump: whole instructions, one of them a near call (jump), none of them another branch,
    /// and none behind a jump.
    /// </summary>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="jump">Whether a jump is meant.</param>
    /// <param name="target">Run address of the function that it leads to.</param>
    /// <param name="field">Where the 32-bit displacement is.</param>
    public bool TryReadDirect(ReadOnlySpan<byte> bytes, ulong address, bool jump, out ulong target, out int field)
    {
        target = 0;
        field = 0;
        int calls = 0;
        bytes.CopyTo(_bytes);
        _reader.Position = 0;
        _decoder.IP = address;
        while (_reader.Position < bytes.Length)
        {
            int start = _reader.Position;
            _decoder.Decode(out Instruction instruction);
            bool isMeant = jump ? instruction.IsJmpNear && _reader.Position == bytes.Length : instruction.IsCallNear;
            if (instruction.IsInvalid || _reader.Position > bytes.Length || (instruction.FlowControl != FlowControl.Next && !isMeant))
            {
                return false;
            }

            if (isMeant)
            {
                // 66 e8 has a displacement of 16 bits on AMD's processors, and one of 32 on Intel's.
                ConstantOffsets offsets = _decoder.GetConstantOffsets(instruction);
                field = start + offsets.ImmediateOffset;
                target = instruction.NearBranchTarget;
                calls += offsets.ImmediateSize == sizeof(int) && !bytes[start..field].Contains((byte)0x66) ? 1 : 2;
            }
        }

        return calls == 1;
    }

    /// <summary>
    /// Where the absolute address is in the original bytes of a site, or -1: that of an indirect call or jump through a fixed address,
    /// which KASLR's relocations change before the kernel patches the site. Calls relative to the instruction pointer stay as they are.
    /// </summary>
    /// <remarks>
    /// 64-bit: <c>ff 14 25 abs32</c> and <c>ff 24 25 abs32</c> (call and jmp [disp32], 2.6.30 to 5.10); 32-bit: <c>ff 15 abs32</c> and
    /// <c>ff 25 abs32</c>. Older sites push registers first (50..57) and have a cs prefix (2e).
    /// </remarks>
    public static int FindAddress(ReadOnlySpan<byte> original, int bitness)
    {
        int at = 0;
        while (at < original.Length && original[at] is (>= 0x50 and <= 0x57) or 0x2e)
        {
            at++;
        }

        ReadOnlySpan<byte> code = original[at..];
        if (bitness == 64)
        {
            return code.Length >= 7 && code[0] == 0xff && code[1] is 0x14 or 0x24 && code[2] == 0x25 ? at + 3 : -1;
        }

        return code.Length >= 6 && code[0] == 0xff && code[1] is 0x15 or 0x25 ? at + 2 : -1;
    }

    /// <summary>Adds the slide to the address in original bytes, where they have one.</summary>
    public static void Relocate(Span<byte> original, int bitness, long slide)
    {
        int at = FindAddress(original, bitness);
        if (at >= 0)
        {
            Span<byte> operand = original.Slice(at, 4);
            BinaryPrimitives.WriteUInt32LittleEndian(operand, unchecked(BinaryPrimitives.ReadUInt32LittleEndian(operand) + (uint)slide));
        }
    }

    /// <summary>
    /// Whether a call or jump reads a whole word at the address it names: not so with fs: (64) and gs: (65), which add a base nobody here
    /// knows, with 66, which makes it a 16-bit call in 32-bit code and on AMD in 64-bit code too, and with 67, which cuts the address. The
    /// other prefixes (cs, ss, ds, es, bnd, notrack, REX) leave the call what it is.
    /// </summary>
    internal static bool HasOrdinaryPrefixes(ReadOnlySpan<byte> instruction) =>
        instruction[..instruction.IndexOf((byte)0xff)].IndexOfAny<byte>([0x64, 0x65, 0x66, 0x67]) < 0; // ff /2, ff /4: no prefix is ff

    private void Remember(ReadOnlySpan<byte> site, in Instruction call, ConstantOffsets offsets, int start)
    {
        int end = start + call.Length;
        int fieldBase = call.IsIPRelativeMemoryOperand ? end : call.MemoryBase == Register.None && call.MemoryIndex == Register.None
            ? 0 : -1;
        int size = offsets.DisplacementSize;
        if (size is not (0 or 1 or 4) || (fieldBase >= 0 && size != 4))
        {
            return;
        }

        int hole = start + offsets.DisplacementOffset;
        Vector128<byte> whole = SiteBytes.Masks[site.Length];
        Vector128<byte> extract = SiteBytes.Extract(hole, size);
        Vector128<byte> insert = SiteBytes.Insert(hole, size);
        Vector128<byte> mask = Vector128.AndNot(whole, Vector128.ShuffleNative(Vector128<byte>.AllBitsSet, insert));
        Vector128<byte> bytes = SiteBytes.Pad(site) & mask;
        if (!_all.TryGetValue((mask, bytes), out OldForm known))
        {
            known = new OldForm
            {
                Fixed = mask,
                Bytes = bytes,
                Extract = extract,
                Insert = insert,
                Whole = whole,
                Length = site.Length,
                FieldBase = fieldBase
            };
            known.Number = _forms.Add(known);
            if (known.Number < 0)
            {
                return;
            }

            _all.Add((mask, bytes), known);
        }

        int way = _nextWay[site.Length]++ & (Ways - 1);
        _known[(site.Length * Ways) + way] = known;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private ref readonly OldForm FindOther(Vector128<byte> bytes, int length)
    {
        int first = length * Ways;
        for (int i = first + 1; i < first + Ways; i++)
        {
            if (_known[i].Matches(bytes))
            {
                return ref _known[i];
            }
        }

        return ref Unsafe.NullRef<OldForm>();
    }
}
