using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// The way of an assembler's instructions into an arena: an address, a first pass that shows where the sites fall, padding before those whose placement asks for
/// it, and the bytes of sites and forwarding islands, which are known only now.
/// </summary>
internal sealed class BlockAssembly
{
    private const BlockEncoderOptions Options = BlockEncoderOptions.ReturnNewInstructionOffsets;

    // Padding in front of one site moves all that follow, and a short jump may grow: a few rounds settle it.
    private const int MaxRounds = 64;

    private static readonly OpsLayout s_noOperations = OpsLayout.Create(static _ => { }, "none");

    private readonly CodeArena _arena;
    private readonly Assembler _assembler;
    private readonly SiteEmitter _sites;
    private readonly SlotTable? _slots;
    private readonly int[] _padding;

    // Of every instruction but the last, before anything is put between them. Those that may change, branches, are not asked for.
    private int[] _lengths = [];

    public BlockAssembly(CodeArena arena, Assembler assembler, SiteEmitter? sites, SlotTable? slots)
    {
        sites ??= new SiteEmitter(s_noOperations);
        if (assembler.Bitness != 64)
        {
            throw new PatchException(SiteEmitter.Misuse("an arena holds 64-bit code") with { Found = $"an assembler for {assembler.Bitness}-bit code" });
        }

        if (sites.Assembler is not null && !ReferenceEquals(sites.Assembler, assembler))
        {
            throw new PatchException(SiteEmitter.Misuse("the sites were emitted into another assembler"));
        }

        if (assembler.Instructions.Count == 0 || (sites.Count > 0 && sites.Sites[^1].Instruction >= assembler.Instructions.Count))
        {
            throw new PatchException(SiteEmitter.Misuse("the assembler holds fewer instructions than its sites, or none") with
            {
                Help = "Where the assembler is reset, clear the emitter too.",
            });
        }

        _arena = arena;
        _assembler = assembler;
        _sites = sites;
        _slots = slots;
        _padding = new int[sites.Count];
    }

    public CodeBlock Run(out CodeLabels labels)
    {
        // The length is not known before the address is.
        using var likely = new CodeReservation(_arena, LikelyLength());
        Encoded code = Encode(likely.Address);
        if (code.Bytes.Length > likely.Capacity)
        {
            using var longest = new CodeReservation(_arena, LongestLength());
            return Commit(longest, Encode(longest.Address), out labels);
        }

        // Now that it is, there may be room for it further down, where a block was retired.
        using var exact = new CodeReservation(_arena, code.Bytes.Length);
        if (exact.Address < likely.Address && Encode(exact.Address) is var again && again.Bytes.Length <= exact.Capacity)
        {
            return Commit(exact, again, out labels);
        }

        exact.Dispose(); // it lies behind the other, and that gives its rest back
        return Commit(likely, code, out labels);
    }

    /// <summary>Few instructions of generated code have more than eight bytes on average.</summary>
    private int LikelyLength() => _assembler.Instructions.Count * 8 + _sites.Sites.Sum(static s => s.Kind.Budget + (s.Forwarding ? EmittedIsland.Length : 0));

    /// <summary>Twice the longest instruction for what Iced makes of a branch that does not reach.</summary>
    private int LongestLength() => _assembler.Instructions.Count * 32 + _sites.Count * (2 * SiteClassifier.LineSize + EmittedIsland.Length) + SiteClassifier.LineSize;

    private CodeBlock Commit(CodeReservation reservation, Encoded code, out CodeLabels labels)
    {
        code.Bytes.CopyTo(reservation.Span);
        var records = new SiteRecord[_sites.Count];
        for (int i = 0; i < records.Length; i++)
        {
            Finish(i, code.SiteOffsets[i], code.IslandOffsets[i], reservation, ref records[i]);
        }

        labels = new CodeLabels(reservation.Address, code.Offsets, code.Moved);
        return reservation.Commit(code.Bytes.Length, _slots, records, foreign: null);
    }

    private Encoded Encode(VirtualAddress address)
    {
        int[] behind = [.. _sites.SitesWithoutIsland()];
        Array.Clear(_padding);

        // The assembler's own encoding first: it finds what is wrong with the instructions, and without padding it is all there is to do.
        LabelCheck.ThrowIfUnplaced(_assembler);
        var writer = new ListWriter();
        if (!_assembler.TryAssemble(writer, address.Value, out string? message, out AssemblerResult result, Options))
        {
            throw new PatchException(SiteEmitter.Misuse($"the code does not assemble: {message}"));
        }

        uint[] offsets = result.Result[0].NewInstructionOffsets;
        if (behind.Length == 0 && !Pad(i => offsets[_sites.Sites[i].Instruction]))
        {
            return Measured(writer.ToArray(), offsets, moved: null, behind: []);
        }

        _lengths = [.. offsets.Skip(1).Zip(offsets, static (next, own) => (int)(next - own))];
        for (int round = 0; round < MaxRounds; round++)
        {
            (List<Instruction> instructions, int[] moved, int[] islands) = Padded(behind);
            writer = new ListWriter();
            if (!BlockEncoder.TryEncode(64, new InstructionBlock(writer, instructions, address.Value), out message, out BlockEncoderResult encoded, Options))
            {
                throw new PatchException(SiteEmitter.Misuse($"the code does not assemble: {message}"));
            }

            offsets = encoded.NewInstructionOffsets;
            if (!Pad(i => offsets[moved[_sites.Sites[i].Instruction]]))
            {
                return Measured(writer.ToArray(), offsets, moved, [.. behind.Zip(islands)]);
            }
        }

        throw new PatchException(SiteEmitter.Misuse("the placement of the sites and the lengths of the jumps do not settle") with
        {
            Help = "Emit smaller blocks, or ask for a weaker placement.",
        });
    }

    /// <summary>
    /// Adds what each site needs before it, given where it lies with what it has now. Whether anything changed. Nothing is ever taken away again: so distances only
    /// grow, jumps only become longer, and it comes to an end.
    /// </summary>
    private bool Pad(Func<int, uint> offsetOf)
    {
        long shift = 0;
        for (int i = 0; i < _padding.Length; i++)
        {
            int wanted = PlacementRules.PaddingFor(_sites.Sites[i], offsetOf(i) + shift);
            shift += wanted;
            _padding[i] += wanted;
        }

        return shift != 0;
    }

    private (List<Instruction> Instructions, int[] Moved, int[] Islands) Padded(int[] behind)
    {
        var instructions = new List<Instruction>(_assembler.Instructions.Count + _padding.Length + behind.Length);
        int[] moved = new int[_assembler.Instructions.Count];
        int next = 0;
        for (int i = 0; i < moved.Length; i++)
        {
            if (next < _padding.Length && _sites.Sites[next].Instruction == i)
            {
                AddPadding(instructions, i, _padding[next++]);
            }

            moved[i] = instructions.Count;
            instructions.Add(_assembler.Instructions[i]);
        }

        int[] islands = new int[behind.Length];
        for (int i = 0; i < behind.Length; i++)
        {
            islands[i] = instructions.Count;
            instructions.Add(Instruction.CreateDeclareByte(new byte[EmittedIsland.Length]));
        }

        return (instructions, moved, islands);
    }

    private void AddPadding(List<Instruction> instructions, int site, int padding)
    {
        if (padding == 0)
        {
            return;
        }

        if (site > 0 && PlacementPadding.CanTake(_assembler.Instructions[site - 1], _lengths[site - 1], padding))
        {
            PlacementPadding.AddPrefixes(instructions, padding);
        }
        else
        {
            PlacementPadding.AddNops(instructions, padding);
        }
    }

    private Encoded Measured(byte[] bytes, uint[] offsets, int[]? moved, (int Site, int Instruction)[] behind)
    {
        uint OffsetOf(int instruction) => offsets[moved is null ? instruction : moved[instruction]];
        int[] sites = [.. _sites.Sites.Select(s => (int)OffsetOf(s.Instruction))];
        int[] islands = new int[sites.Length];
        foreach (EmittedIsland island in _sites.Islands)
        {
            islands[island.Site] = (int)OffsetOf(island.Instruction);
        }

        foreach ((int site, int instruction) in behind)
        {
            islands[site] = (int)offsets[instruction];
        }

        return new Encoded(bytes, offsets, moved, sites, islands);
    }

    private void Finish(int index, int offset, int island, CodeReservation reservation, ref SiteRecord record)
    {
        EmittedSite emitted = _sites.Sites[index];
        int budget = emitted.Kind.Budget;
        VirtualAddress site = reservation.Address + offset;
        Span<byte> bytes = reservation.Span.Slice(offset, budget);
        SlotTable slots = _slots!;
        slots.WriteOriginal(emitted.Kind, site, bytes);
        record.Offset = (uint)(site - _arena.Address);
        record.Kind = slots.Kinds.NumberOf(emitted.Kind);
        if (!emitted.Forwarding)
        {
            return;
        }

        Span<byte> code = reservation.Span.Slice(island, EmittedIsland.Length);
        bool jump = slots.Layout[emitted.Kind.Slot].Kind == SlotKind.Jump;
        IndirectForm.Write(code[..IndirectForm.Length], reservation.Address + island, slots.AddressOf(emitted.Kind.Slot), jump);
        code[IndirectForm.Length] = 0xe9; // jmp rel32 to the site's end
        BinaryPrimitives.WriteInt32LittleEndian(code[(IndirectForm.Length + 1)..], offset + budget - (island + EmittedIsland.Length));
        int distance = island - (offset + 2);
        record.Forward = distance is >= sbyte.MinValue and <= sbyte.MaxValue ? (sbyte)distance : (sbyte)0;
    }

    private sealed record Encoded(byte[] Bytes, uint[] Offsets, int[]? Moved, int[] SiteOffsets, int[] IslandOffsets);

    private sealed class ListWriter : CodeWriter
    {
        private readonly List<byte> _bytes = [];

        public override void WriteByte(byte value) => _bytes.Add(value);

        public byte[] ToArray() => [.. _bytes];
    }
}
