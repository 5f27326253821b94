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

    private readonly CodeArena _arena;
    private readonly Assembler _assembler;
    private readonly SlotTable[] _slots; // of each emitter
    private readonly PlacedSite[] _sites; // of all emitters, in order of address
    private readonly (int Site, int Instruction)[] _islands;
    private readonly int[] _padding;

    // Of every instruction but the last, before anything is put between them. Those that may change, branches, are not asked for.
    private int[] _lengths = [];

    public BlockAssembly(CodeArena arena, Assembler assembler, IReadOnlyList<SiteEmitter> emitters)
    {
        if (assembler.Bitness != 64)
        {
            throw new PatchException(SiteEmitter.Misuse("an arena holds 64-bit code") with { Found = $"an assembler for {assembler.Bitness}-bit code" });
        }

        if (assembler.Instructions.Count == 0)
        {
            throw new PatchException(SiteEmitter.Misuse("the assembler holds no instructions"));
        }

        if (emitters.Distinct().Count() != emitters.Count)
        {
            throw new PatchException(SiteEmitter.Misuse("an emitter is named twice"));
        }

        foreach (SiteEmitter sites in emitters)
        {
            ArgumentNullException.ThrowIfNull(sites, nameof(emitters));
            if (sites.Assembler is not null && !ReferenceEquals(sites.Assembler, assembler))
            {
                throw new PatchException(SiteEmitter.Misuse("the sites were emitted into another assembler"));
            }
        }

        _arena = arena;
        _assembler = assembler;
        (_sites, _islands) = InOrder(emitters);
        Placeholder.Check(assembler.Instructions, Claims(emitters));
        LabelCheck.Check(assembler);
        _padding = new int[_sites.Length];
        _slots = new SlotTable[emitters.Count];
        for (int i = 0; i < _slots.Length; i++)
        {
            _slots[i] = arena.SlotsOf(emitters[i].Layout);
        }
    }

    /// <summary>Puts the code into the arena.</summary>
    /// <returns>A block for each emitter; one without sites where there is none.</returns>
    public CodeBlock[] Run(out CodeLabels labels)
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
    private int LikelyLength() => _assembler.Instructions.Count * 8 + _sites.Sum(static s => s.Emitted.Kind.Budget + (s.Emitted.Forwarding ? EmittedIsland.Length : 0));

    /// <summary>Twice the longest instruction for what Iced makes of a branch that does not reach.</summary>
    private int LongestLength() => _assembler.Instructions.Count * 32 + _sites.Length * (2 * SiteClassifier.LineSize + EmittedIsland.Length) + SiteClassifier.LineSize;

    private CodeBlock[] Commit(CodeReservation reservation, Encoded code, out CodeLabels labels)
    {
        var groups = new SiteGroup[Math.Max(1, _slots.Length)];
        for (int i = 0; i < _slots.Length; i++)
        {
            groups[i] = new SiteGroup(_slots[i], new SiteRecord[_sites.Count(s => s.Emitter == i)], null);
        }

        if (_slots.Length == 0)
        {
            groups[0] = new SiteGroup(null, [], null);
        }

        for (int i = 0; i < _sites.Length; i++)
        {
            SiteGroup group = groups[_sites[i].Emitter];
            Finish(i, code.SiteOffsets[i], code.IslandOffsets[i], reservation.Address, code.Bytes, group.Slots!, ref group.Records[_sites[i].Index]);
        }

        labels = new CodeLabels(reservation.Address, code.Offsets, code.Moved);
        return reservation.Commit(code.Bytes, groups);
    }

    /// <summary>The sites of all emitters in order of address, and the islands that were emitted for them.</summary>
    private static (PlacedSite[] Sites, (int Site, int Instruction)[] Islands) InOrder(IReadOnlyList<SiteEmitter> emitters)
    {
        PlacedSite[] sites = [.. emitters.SelectMany(static (e, emitter) => e.Sites.Select((s, index) => new PlacedSite(s, emitter, index)))];
        if (emitters.Count > 1)
        {
            Array.Sort(sites, static (a, b) => a.Emitted.Instruction.CompareTo(b.Emitted.Instruction));
        }

        int[][] places = [.. emitters.Select(static e => new int[e.Count])];
        for (int i = 0; i < sites.Length; i++)
        {
            places[sites[i].Emitter][sites[i].Index] = i;
        }

        return (sites, [.. emitters.SelectMany((e, emitter) => e.Islands.Select(i => (places[emitter][i.Site], i.Instruction)))]);
    }

    private static (int Instruction, uint Number)[] Claims(IReadOnlyList<SiteEmitter> emitters)
    {
        var claims = new List<(int Instruction, uint Number)>();
        foreach (SiteEmitter sites in emitters)
        {
            claims.AddRange(sites.Sites.Select(static s => (s.Instruction, s.Placeholder)));
            claims.AddRange(sites.Islands.Select(static i => (i.Instruction, i.Placeholder)));
        }

        claims.Sort(static (a, b) => a.Instruction.CompareTo(b.Instruction));
        return [.. claims];
    }

    private Encoded Encode(VirtualAddress address)
    {
        int[] behind = SitesWithoutIsland();
        Array.Clear(_padding);

        // The assembler's own encoding first: it finds what is wrong with the instructions, and without padding it is all there is to do.
        var writer = new ListWriter();
        if (!_assembler.TryAssemble(writer, address.Value, out string? message, out AssemblerResult result, Options))
        {
            throw new PatchException(SiteEmitter.Misuse($"the code does not assemble: {message}"));
        }

        uint[] offsets = result.Result[0].NewInstructionOffsets;
        if (behind.Length == 0 && !Pad(i => offsets[_sites[i].Emitted.Instruction]))
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
            if (!Pad(i => offsets[moved[_sites[i].Emitted.Instruction]]))
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
            int wanted = PlacementRules.PaddingFor(_sites[i].Emitted, offsetOf(i) + shift);
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
            if (next < _padding.Length && _sites[next].Emitted.Instruction == i)
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
        int[] sites = [.. _sites.Select(s => (int)OffsetOf(s.Emitted.Instruction))];
        int[] islands = new int[sites.Length];
        foreach ((int site, int instruction) in _islands)
        {
            islands[site] = (int)OffsetOf(instruction);
        }

        foreach ((int site, int instruction) in behind)
        {
            islands[site] = (int)offsets[instruction];
        }

        return new Encoded(bytes, offsets, moved, sites, islands);
    }

    /// <summary>The sites that ask for a forwarding island and have none yet: theirs go behind the block.</summary>
    private int[] SitesWithoutIsland()
    {
        var with = new HashSet<int>(_islands.Select(static i => i.Site));
        return [.. Enumerable.Range(0, _sites.Length).Where(i => _sites[i].Emitted.Forwarding && !with.Contains(i))];
    }

    /// <summary>
    /// Writes a site and its forwarding island, where a guard leads that is put up while the site is changed:
    /// <code>
    /// site          2e ff 15 dd dd dd dd      cs call [rip+slot]
    ///   guarded     eb ff                     jmp to the island, 127 bytes away at most
    /// island        ff 15 dd dd dd dd         call [rip+slot], and so does the operation
    ///               e9 dd dd dd dd            jmp to the site's end
    /// </code>
    /// </summary>
    private void Finish(int index, int offset, int island, VirtualAddress start, Span<byte> code, SlotTable slots, ref SiteRecord record)
    {
        EmittedSite emitted = _sites[index].Emitted;
        int budget = emitted.Kind.Budget;
        VirtualAddress site = start + offset;
        slots.WriteOriginal(emitted.Kind, site, code.Slice(offset, budget));
        record.Offset = (uint)(site - _arena.Address);
        record.Kind = slots.Kinds.NumberOf(emitted.Kind);
        if (!emitted.Forwarding)
        {
            return;
        }

        Span<byte> forwarding = code.Slice(island, EmittedIsland.Length);
        bool jump = slots.Layout[emitted.Kind.Slot].Kind == SlotKind.Jump;
        IndirectForm.Write(forwarding[..IndirectForm.Length], start + island, slots.AddressOf(emitted.Kind.Slot), jump);
        forwarding[IndirectForm.Length] = 0xe9; // jmp rel32 to the site's end
        BinaryPrimitives.WriteInt32LittleEndian(forwarding[(IndirectForm.Length + 1)..], offset + budget - (island + EmittedIsland.Length));
        int distance = island - (offset + 2);
        record.Forward = distance is >= sbyte.MinValue and <= sbyte.MaxValue ? (sbyte)distance : (sbyte)0;
    }

    /// <summary>A site among those of all emitters.</summary>
    private readonly record struct PlacedSite(EmittedSite Emitted, int Emitter, int Index);

    private sealed record Encoded(byte[] Bytes, uint[] Offsets, int[]? Moved, int[] SiteOffsets, int[] IslandOffsets);

    private sealed class ListWriter : CodeWriter
    {
        private readonly List<byte> _bytes = [];

        public override void WriteByte(byte value) => _bytes.Add(value);

        public byte[] ToArray() => [.. _bytes];
    }
}
