using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// The way of an assembler's instructions into an arena: an address, a first pass that shows where the sites fall, padding before those
/// whose placement asks for it, and the bytes of sites and forwarding islands, which are known only now.
/// </summary>
internal sealed partial class BlockAssembly
{
    private const BlockEncoderOptions Options = BlockEncoderOptions.ReturnNewInstructionOffsets;

    // Padding in front of one site moves all that follow, and a short jump may grow: a few rounds settle it.
    private const int MaxRounds = 64;

    // In place of the instruction behind a label.
    private const int Nowhere = -1;
    private const int Twice = -2;

    private readonly CodeArena _arena;
    private readonly Assembler _assembler;
    private readonly SiteEmitter[] _emitters;
    private readonly SlotTable[] _slots; // of each emitter
    private readonly EmittedSite[] _sites; // of all emitters, in order of address
    private readonly int[] _emitterOf; // each site
    private readonly int[] _islandOf; // each site: the island's instruction, behind the assembler's where it was not emitted; -1 for none
    private readonly int _islandsBehind;
    private readonly int[] _padding; // before each site
    private readonly int _siteBytes; // of sites and islands
    private readonly Dictionary<ulong, int> _placed = []; // the instruction behind each label, if any site follows settings

    // Of every instruction but the last, before anything is put between them. Those that may change, branches, are not asked for.
    private int[] _lengths = [];

    public BlockAssembly(CodeArena arena, Assembler assembler, SiteEmitter[] emitters)
    {
        if (assembler.Bitness != 64)
        {
            throw new PatchException(
                SiteEmitter.Misuse("an arena holds 64-bit code") with { Found = $"an assembler for {assembler.Bitness}-bit code" });
        }

        if (assembler.Instructions.Count == 0)
        {
            throw new PatchException(SiteEmitter.Misuse("the assembler holds no instructions"));
        }

        _arena = arena;
        _assembler = assembler;
        _emitters = emitters;
        int count = 0;
        for (int i = 0; i < emitters.Length; i++)
        {
            CheckEmitter(i);
            count += emitters[i].Count;
        }

        _sites = new EmittedSite[count];
        _emitterOf = new int[count];
        _islandOf = new int[count];
        _padding = new int[count];
        Gather();
        for (int i = 0; i < count; i++)
        {
            bool behind = _sites[i].Forwarding && _sites[i].Island < 0;
            _siteBytes += _sites[i].Kind.Budget + (_sites[i].Forwarding ? EmittedSite.IslandLength : 0);
            _islandOf[i] = behind ? assembler.Instructions.Count + _islandsBehind++ : _sites[i].Island;
        }

        EmittedSite.CheckPlaceholders(assembler.Instructions, _sites);
        CodeLabels.Check(assembler);
        CheckSettings();
        _slots = new SlotTable[emitters.Length];
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
        byte[] code = Encode(likely.Address, out labels);
        if (code.Length > likely.Capacity)
        {
            using var longest = new CodeReservation(_arena, LongestLength());
            return Commit(longest, Encode(longest.Address, out labels), labels);
        }

        // Now that it is, there may be room for it further down, where a block was retired.
        using var exact = new CodeReservation(_arena, code.Length);
        if (exact.Address < likely.Address)
        {
            byte[] again = Encode(exact.Address, out CodeLabels labelsThere);
            if (again.Length <= exact.Capacity)
            {
                labels = labelsThere;
                return Commit(exact, again, labels);
            }
        }

        exact.Dispose(); // it lies behind the other, and that gives its rest back
        return Commit(likely, code, labels);
    }

    /// <summary>Few instructions of generated code have more than eight bytes on average.</summary>
    private int LikelyLength() => _assembler.Instructions.Count * 8 + _siteBytes;

    /// <summary>Twice the longest instruction for what Iced makes of a branch that does not reach.</summary>
    private int LongestLength() => _assembler.Instructions.Count * 32
        + _sites.Length * (2 * SiteRecord.LineSize + EmittedSite.IslandLength) + SiteRecord.LineSize;

    private CodeBlock[] Commit(CodeReservation reservation, byte[] code, CodeLabels labels)
    {
        bool plain = _emitters.Length == 0;
        CodeBlock[] blocks = plain ? [new CodeBlock(_arena, null, reservation.Address, code.Length, [])] : new CodeBlock[_emitters.Length];
        for (int i = 0; i < _emitters.Length; i++)
        {
            blocks[i] = new CodeBlock(_arena, _slots[i], reservation.Address, code.Length, new SiteRecord[_emitters[i].Count]);
        }

        try
        {
            int[] next = new int[blocks.Length];
            for (int i = 0; i < _sites.Length; i++)
            {
                CodeBlock block = blocks[_emitterOf[i]];
                Finish(i, labels, code, block, next[_emitterOf[i]]++);
            }

            reservation.Commit(code, blocks);
            return blocks;
        }
        catch
        {
            foreach (CodeBlock block in blocks)
            {
                _ = _arena.Arguments.Free(block);
            }

            throw;
        }
    }

    /// <summary>Finds the labels of sites that follow settings, and whether these may be in this arena.</summary>
    private void CheckSettings()
    {
        bool any = false;
        for (int i = 0; i < _sites.Length; i++)
        {
            if (_sites[i].Setting is not EmittedSetting emitted)
            {
                continue;
            }

            for (int j = 0; !any && j < _assembler.Instructions.Count; j++)
            {
                if (_assembler.Instructions[j].IP is ulong label and not 0)
                {
                    _placed[label] = _placed.ContainsKey(label) ? Twice : j;
                }
            }

            any = true;
            foreach (ulong label in emitted.Labels)
            {
                int place = label == 0 ? 0 : _placed.GetValueOrDefault(label, Nowhere);
                if (place < 0)
                {
                    string name = emitted.Settings.FirstOrDefault()?.Name ?? "variants";
                    throw new PatchException(
                        SiteEmitter.Misuse($"a label of \"{name}\" is {(place == Twice ? "placed twice" : "used but not placed")}") with
                        {
                            Help = "Place it once, in the same assembler; code elsewhere is reached by a jump behind a label.",
                        });
                }
            }

            foreach (LiveSetting setting in emitted.Settings)
            {
                if (setting.CheckArena(_arena) is PatchDiagnostic error)
                {
                    throw new PatchException(error);
                }
            }
        }
    }

    private void CheckEmitter(int number)
    {
        SiteEmitter sites = _emitters[number];
        ArgumentNullException.ThrowIfNull(sites, "emitters");
        if (Array.IndexOf(_emitters, sites, 0, number) >= 0)
        {
            throw new PatchException(SiteEmitter.Misuse("an emitter is named twice"));
        }

        if (sites.Assembler is not null && !ReferenceEquals(sites.Assembler, _assembler))
        {
            throw new PatchException(SiteEmitter.Misuse("the sites were emitted into another assembler"));
        }
    }

    /// <summary>Takes the sites of all emitters, in order of address.</summary>
    private void Gather()
    {
        int next = 0;
        for (int i = 0; i < _emitters.Length; i++)
        {
            ReadOnlySpan<EmittedSite> sites = _emitters[i].Sites;
            sites.CopyTo(_sites.AsSpan(next));
            _emitterOf.AsSpan(next, sites.Length).Fill(i);
            next += sites.Length;
        }

        if (_emitters.Length > 1)
        {
            int[] order = Array.ConvertAll(_sites, static s => s.Instruction);
            Array.Sort((int[])order.Clone(), _sites);
            Array.Sort(order, _emitterOf);
        }
    }

    private byte[] Encode(VirtualAddress address, out CodeLabels labels)
    {
        Array.Clear(_padding);

        // The assembler's own encoding first: it finds what is wrong with the instructions, and without padding it is all there is to do.
        int count = _assembler.Instructions.Count;
        var code = new ByteWriter(LikelyLength());
        if (!_assembler.TryAssemble(code, address.Value, out string? message, out AssemblerResult result, Options))
        {
            throw new PatchException(SiteEmitter.Misuse($"the code does not assemble: {message}"));
        }

        uint[] offsets = result.Result[0].NewInstructionOffsets;
        labels = new CodeLabels(address, count, offsets, moved: null);
        if (!Pad(labels) && _islandsBehind == 0 && !AnyLabelLost(offsets))
        {
            return code.ToArray();
        }

        _lengths = [.. offsets.Skip(1).Zip(offsets, static (next, own) => (int)(next - own))];
        for (int round = 0; round < MaxRounds; round++)
        {
            (List<Instruction> instructions, int[] moved) = Padded();
            code.Clear();
            var block = new InstructionBlock(code, instructions, address.Value);
            if (!BlockEncoder.TryEncode(64, block, out message, out BlockEncoderResult encoded, Options))
            {
                throw new PatchException(SiteEmitter.Misuse($"the code does not assemble: {message}"));
            }

            labels = new CodeLabels(address, count, encoded.NewInstructionOffsets, moved);
            if (!Pad(labels))
            {
                return code.ToArray();
            }
        }

        throw new PatchException(SiteEmitter.Misuse("the placement of the sites and the lengths of the jumps do not settle") with
        {
            Help = "Emit smaller blocks, or ask for a weaker placement.",
        });
    }

    /// <summary>
    /// Whether an instruction that has a label was made several, for what it names is out of its reach: Iced does not tell where it begins.
    /// </summary>
    private bool AnyLabelLost(uint[] offsets)
    {
        for (int i = Array.IndexOf(offsets, uint.MaxValue); i >= 0; i = Array.IndexOf(offsets, uint.MaxValue, i + 1))
        {
            if (_assembler.Instructions[i].IP != 0)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Adds what each site needs before it, given where it lies with what it has now. Whether anything changed. Nothing is ever taken away
    /// again: so distances only grow, jumps only become longer, and it comes to an end.
    /// </summary>
    private bool Pad(CodeLabels labels)
    {
        long shift = 0;
        for (int i = 0; i < _padding.Length; i++)
        {
            int wanted = _sites[i].PaddingFor(labels.OffsetOf(_sites[i].Instruction) + shift);
            shift += wanted;
            _padding[i] += wanted;
        }

        return shift != 0;
    }

    /// <summary>
    /// The instructions with the padding and the islands that were not emitted, and where in them each of the assembler's and each island
    /// is.
    /// </summary>
    private (List<Instruction> Instructions, int[] Moved) Padded()
    {
        int count = _assembler.Instructions.Count;
        var instructions = new List<Instruction>(count + _padding.Length + _islandsBehind);
        int[] moved = new int[count + _islandsBehind];
        int next = 0;
        for (int i = 0; i < moved.Length; i++)
        {
            if (next < _padding.Length && _sites[next].Instruction == i)
            {
                SitePadding.Add(instructions, _assembler.Instructions, _lengths, i, _padding[next++]);
            }

            moved[i] = instructions.Count;
            Instruction own = i < count ? _assembler.Instructions[i] : Instruction.CreateDeclareByte(new byte[EmittedSite.IslandLength]);
            if (own.IP != 0 && BodyBuilder.RelativeTarget(own) is not null)
            {
                // It may be made several, and then Iced does not tell where it begins: something of no length has the label.
                var label = Instruction.Create(Code.Zero_bytes);
                label.IP = own.IP;
                own.IP = 0;
                instructions.Add(label);
            }

            instructions.Add(own);
        }

        return (instructions, moved);
    }
}
