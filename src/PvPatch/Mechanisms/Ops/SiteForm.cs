using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Iced.Intel;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

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
/// displacement, and nearly all sites of a table are one of a few such forms.
/// </summary>
internal sealed class SiteFormReader
{
    // Places for each length. A table with more forms of one length than that is decoded more often, and no worse.
    private const int Ways = 4;

    private readonly int _bitness;
    private readonly SiteBytesReader _bytes = new();
    private readonly Decoder _decoder;
    private readonly KnownForm[] _known = new KnownForm[(PlanEntry.MaxInPlace + 1) * Ways];
    private readonly int[] _nextWay = new int[PlanEntry.MaxInPlace + 1];

    public SiteFormReader(int bitness)
    {
        _bitness = bitness;
        _decoder = Decoder.Create(bitness, _bytes);
        // A form that has not been seen must not be mistaken for one: no bytes under a mask of nothing equal all ones.
        _known.AsSpan().Fill(new KnownForm { Bytes = Vector128<byte>.AllBitsSet });
    }

    /// <summary>Whether a site is an indirect call or jump of a form read before.</summary>
    /// <param name="bytes">The site's bytes, zero behind them.</param>
    /// <param name="length">How many there are, 1 to 16.</param>
    /// <param name="form">The form, to be asked for the operand.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Knows(Vector128<byte> bytes, int length, out int form)
    {
        form = length * Ways;
        return Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_known), form).Matches(bytes) || KnowsOther(bytes, ref form);
    }

    /// <summary>The address a call or jump of a known form reads its target from; 0 where it is not in the instruction.</summary>
    /// <param name="form">The form.</param>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    public ulong SlotAddress(int form, Vector128<byte> bytes, ulong address) => _known[form].SlotAddress(bytes, address, _bitness);

    /// <summary>Reads a site.</summary>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="slotAddress">The address the call or jump reads its target from; 0 where it is not in the instruction (register relative).</param>
    public SiteForm Read(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress)
    {
        slotAddress = 0;
        SiteForm form = SiteForm.OtherCode;
        KnownForm known = default;
        bool canBeKnown = false;
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

            bool call = instruction.FlowControl == FlowControl.IndirectCall;
            if ((call || instruction.FlowControl == FlowControl.IndirectBranch) && instruction.Op0Kind == OpKind.Memory)
            {
                form = call ? SiteForm.IndirectCall : SiteForm.IndirectJump;
                slotAddress = instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
                    : instruction.MemoryBase == Register.None && instruction.MemoryIndex == Register.None ? instruction.MemoryDisplacement64
                    : 0;
                canBeKnown = KnownForm.TryMake(bytes, instruction, _decoder.GetConstantOffsets(instruction), start, _bitness, out known);
            }
        }

        if (canBeKnown)
        {
            int way = _nextWay[bytes.Length]++ & (Ways - 1);
            _known[(bytes.Length * Ways) + way] = known;
        }

        return form;
    }

    private bool KnowsOther(Vector128<byte> bytes, ref int form)
    {
        int end = form + Ways;
        while (++form < end)
        {
            if (_known[form].Matches(bytes))
            {
                return true;
            }
        }

        return false;
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
