using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Iced.Intel;

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
/// Recognises what stands at a site. Iced decodes; what it found to be an indirect call or jump is remembered without the call's displacement, which
/// decides neither the length of an instruction nor its kind, and nearly all sites of a table are one of a few such forms.
/// </summary>
internal sealed class SiteFormReader
{
    // Places for each length. A table with more forms of one length than that is decoded more often, and no worse.
    private const int Ways = 4;

    private readonly int _bitness;
    private readonly PlanForms _forms;
    private readonly SiteBytesReader _bytes = new();
    private readonly Decoder _decoder;
    private readonly KnownForm[] _known = new KnownForm[(SiteVector.MaxLength + 1) * Ways];
    private readonly int[] _nextWay = new int[SiteVector.MaxLength + 1];
    private readonly Dictionary<(Vector128<byte> Mask, Vector128<byte> Bytes), KnownForm> _all = [];

    /// <summary>Makes a reader.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="forms">Where it puts the forms it finds; nobody else's where there is none.</param>
    public SiteFormReader(int bitness, PlanForms? forms = null)
    {
        _bitness = bitness;
        _forms = forms ?? new PlanForms();
        _decoder = Decoder.Create(bitness, _bytes);
        // A form that has not been seen must not be mistaken for one: no bytes under a mask of nothing equal all ones.
        _known.AsSpan().Fill(new KnownForm { Bytes = Vector128<byte>.AllBitsSet });
    }

    private enum Operand : byte
    {
        /// <summary>Off a register: the address is not in the instruction.</summary>
        Register,

        /// <summary>A signed 32-bit distance from the instruction's end.</summary>
        Relative,

        /// <summary>A 32-bit address, sign-extended in 64-bit code.</summary>
        Absolute,
    }

    /// <summary>The form of a site, where it is an indirect call or jump of a form read before; else a null reference.</summary>
    /// <param name="bytes">16 bytes from the site's first on, whatever stands behind it.</param>
    /// <param name="length">How many of them are the site's, 1 to 16.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref readonly KnownForm Find(Vector128<byte> bytes, int length)
    {
        ref KnownForm form = ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_known), length * Ways);
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
    public ulong SlotAddress(in KnownForm form, int field, ulong address) => (Operand)form.Operand switch
    {
        Operand.Register => 0,
        Operand.Relative => unchecked(address + form.InstructionEnd + (ulong)field),
        _ => _bitness == 64 ? unchecked((ulong)field) : (uint)field,
    };

    /// <summary>Reads a site.</summary>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="slotAddress">The address the call or jump reads its target from; 0 where it is not in the instruction (register relative).</param>
    public SiteForm Read(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress)
    {
        slotAddress = 0;
        SiteForm form = SiteForm.OtherCode;
        (Instruction Call, ConstantOffsets Offsets, int Start) found = default;
        _bytes.Begin(bytes);
        _decoder.IP = address;
        while (_bytes.Position < bytes.Length)
        {
            int start = _bytes.Position;
            _decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                return SiteForm.NotCode;
            }

            bool call = instruction.IsCallNearIndirect;
            if ((call || instruction.IsJmpNearIndirect) && instruction.Op0Kind == OpKind.Memory && HasOrdinaryPrefixes(bytes[start.._bytes.Position]))
            {
                form = call ? SiteForm.IndirectCall : SiteForm.IndirectJump;
                slotAddress = instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
                    : instruction.MemoryBase == Register.None && instruction.MemoryIndex == Register.None ? instruction.MemoryDisplacement64
                    : 0;
                found = (instruction, _decoder.GetConstantOffsets(instruction), start);
            }
        }

        if (form != SiteForm.OtherCode && bytes.Length <= SiteVector.MaxLength)
        {
            Remember(bytes, found.Call, found.Offsets, found.Start);
        }

        return form;
    }

    /// <summary>
    /// Whether a call or jump reads a whole word at the address it names: not so with fs: (64) and gs: (65), which add a base nobody here knows, with 66, which
    /// makes it a 16-bit call in 32-bit code and on AMD in 64-bit code too, and with 67, which cuts the address. The other prefixes (cs, ss, ds, es, bnd,
    /// notrack, REX) leave the call what it is.
    /// </summary>
    private static bool HasOrdinaryPrefixes(ReadOnlySpan<byte> instruction) =>
        instruction[..instruction.IndexOf((byte)0xff)].IndexOfAny<byte>([0x64, 0x65, 0x66, 0x67]) < 0; // ff /2, ff /4: no prefix is ff

    private void Remember(ReadOnlySpan<byte> site, in Instruction call, ConstantOffsets offsets, int start)
    {
        Operand operand = call.IsIPRelativeMemoryOperand ? Operand.Relative
            : call.MemoryBase == Register.None && call.MemoryIndex == Register.None ? Operand.Absolute
            : Operand.Register;
        int size = offsets.DisplacementSize;
        if (size is not (0 or 1 or 4) || (operand != Operand.Register && size != 4))
        {
            return;
        }

        int hole = start + offsets.DisplacementOffset;
        Vector128<byte> whole = SiteVector.Masks[site.Length];
        Vector128<byte> extract = SiteVector.Extract(hole, size);
        Vector128<byte> insert = SiteVector.Insert(hole, size);
        Vector128<byte> mask = Vector128.AndNot(whole, Vector128.ShuffleNative(Vector128<byte>.AllBitsSet, insert));
        Vector128<byte> bytes = SiteVector.Pad(site) & mask;
        if (!_all.TryGetValue((mask, bytes), out KnownForm known))
        {
            int number = _forms.Add(new OldForm { Bytes = bytes, Insert = insert, Whole = whole, Length = site.Length });
            if (number < 0)
            {
                return;
            }

            known = new KnownForm
            {
                Mask = mask,
                Bytes = bytes,
                Extract = extract,
                Number = number,
                InstructionEnd = (byte)(start + call.Length),
                Operand = (byte)operand,
            };
            _all.Add((mask, bytes), known);
        }

        int way = _nextWay[site.Length]++ & (Ways - 1);
        _known[(site.Length * Ways) + way] = known;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private ref readonly KnownForm FindOther(Vector128<byte> bytes, int length)
    {
        int first = length * Ways;
        for (int i = first + 1; i < first + Ways; i++)
        {
            if (_known[i].Matches(bytes))
            {
                return ref _known[i];
            }
        }

        return ref Unsafe.NullRef<KnownForm>();
    }

    /// <summary>Hands the decoder a site's bytes.</summary>
    private sealed class SiteBytesReader : CodeReader
    {
        private readonly byte[] _bytes = new byte[PatchSite.MaxBudget];
        private int _length;

        public int Position { get; private set; }

        public void Begin(ReadOnlySpan<byte> bytes)
        {
            bytes.CopyTo(_bytes);
            _length = bytes.Length;
            Position = 0;
        }

        public override int ReadByte() => Position < _length ? _bytes[Position++] : -1;
    }
}

/// <summary>A form of site as it is recognised: 64 bytes, one cache line.</summary>
[StructLayout(LayoutKind.Sequential, Size = 64)]
internal struct KnownForm
{
    /// <summary>Ones over the site but for the displacement of its call.</summary>
    public Vector128<byte> Mask;

    public Vector128<byte> Bytes;

    /// <summary>Takes the displacement out of a site's bytes.</summary>
    public Vector128<byte> Extract;

    /// <summary>The number of its <see cref="OldForm"/>.</summary>
    public int Number;

    public byte InstructionEnd;

    public byte Operand;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly bool Matches(Vector128<byte> site) => (site & Mask) == Bytes;

    /// <summary>The displacement of a site's call, as it stands there.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly int FieldOf(Vector128<byte> site) => Vector128.ShuffleNative(site, Extract).AsInt32().ToScalar();
}
