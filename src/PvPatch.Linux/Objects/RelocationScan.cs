using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Objects;

/// <summary>
/// Looks at every instruction that a relocation writes to. Code is decoded from one symbol to the next, so that data in code leads no
/// further astray than to the next function.
/// </summary>
/// <remarks>
/// <code>
/// ff 15 / ff 25 / ff 14 25 / ff 24 25   call or jmp through a word of a listed table   a site of the word's slot
/// e8                                    call of a listed function                      a site of the function's slot, 5 bytes
/// e9, 0f 8x, lea, mov, data in code     anything else that names one                   no site: counted and told
/// </code>
/// </remarks>
internal sealed class RelocationScan
{
    private readonly PlacedObject _placed;
    private readonly ListedSymbols _listed;
    private readonly OpsLayout _layout;
    private readonly int _bitness;
    private readonly List<PatchSite> _sites = [];
    private int _others;
    private VirtualAddress _firstOther;

    private RelocationScan(PlacedObject placed, ListedSymbols listed, OpsLayout layout)
    {
        _placed = placed;
        _listed = listed;
        _layout = layout;
        _bitness = placed.Elf.Bitness;
    }

    public static bool TryFind(
        ElfImage file, ElfSymbolTable symbols, PlacedObject placed, ListedSymbols listed, OpsLayout layout, List<PatchDiagnostic> found,
        [NotNullWhen(true)] out RelocatedSites? sites)
    {
        sites = null;
        var scan = new RelocationScan(placed, listed, layout);
        if (!scan.TryReadPlaces(file, out Dictionary<int, List<ulong>>? places, out PatchDiagnostic? error))
        {
            found.Add(error);
            return false;
        }

        foreach ((int section, List<ulong> starts) in Starts(placed, symbols, places.Keys))
        {
            starts.Sort();
            places[section].Sort();
            scan.Scan(placed.Elf.Sections[section], places[section], starts);
        }

        if (!SiteTable.TryCreate([.. scan._sites], out SiteTable? table, out IReadOnlyList<PatchDiagnostic> wrong))
        {
            found.AddRange(wrong);
            return false;
        }

        if (scan._others > 0)
        {
            found.Add(new PatchDiagnostic(
                KernelDiagnosticCodes.ReferenceNotACall, DiagnosticSeverity.Info,
                $"{scan._others} references to listed names are no calls that can be patched") with
            {
                Address = scan._firstOther,
                Expected = "call or jmp through a table, call of a function",
                Help = "Jumps to a function, pointers and data in code stay as they are.",
            });
        }

        sites = new RelocatedSites(table, listed.SlotAddresses, listed.SlotFunctions);
        return true;
    }

    /// <summary>Where code may begin anew, by section: its start and its symbols. One walk, however many sections there are.</summary>
    private static Dictionary<int, List<ulong>> Starts(PlacedObject placed, ElfSymbolTable symbols, IEnumerable<int> sections)
    {
        Dictionary<int, List<ulong>> starts =
            sections.ToDictionary(static s => s, s => new List<ulong> { placed.Elf.Sections[s].Address.Value });
        for (int i = 1; i < symbols.Count; i++)
        {
            ElfSymbol symbol = symbols[i];
            if (symbol.Type is ElfSymbolType.None or ElfSymbolType.Function
                && starts.TryGetValue(symbol.SectionIndex, out List<ulong>? ofSection))
            {
                ofSection.Add(placed.Placement is null ? symbol.Value.Value : unchecked(ofSection[0] + symbol.Value.Value));
            }
        }

        return starts;
    }

    /// <summary>The places that relocations of code write to, by section.</summary>
    private bool TryReadPlaces(
        ElfImage file, [NotNullWhen(true)] out Dictionary<int, List<ulong>>? places, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        places = null;
        bool is64 = file.Bitness == 64;
        var read = new Dictionary<int, List<ulong>>();
        long total = 0;
        foreach (ElfSection table in file.Sections)
        {
            if (table.Type is not (ElfSectionType.RelocationsWithAddend or ElfSectionType.Relocations) || table.IsAllocated
                || table.Info >= (uint)file.Sections.Count
                || !ElfImage.IsCode(file.Sections[(int)table.Info]))
            {
                continue;
            }

            // Honest tables share no bytes; without this bound many headers over one table would take work without end.
            total += (long)table.Size;
            int size = ElfRelocation.Size(is64);
            bool right = table.Type == (is64 ? ElfSectionType.RelocationsWithAddend : ElfSectionType.Relocations)
                && table.EntrySize == (ulong)size && table.Size % (ulong)size == 0 && total <= file.File.Length;
            ElfSection code = _placed.Elf.Sections[(int)table.Info];
            if (!read.TryGetValue(code.Index, out List<ulong>? ofSection))
            {
                read.Add(code.Index, ofSection = []);
            }

            if (!right || !TryRead(file.GetBytes(table).Span, code, is64, ofSection))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.ModuleBadRelocations, $"the relocations {table.Name} are damaged") with
                {
                    FileOffset = table.FileOffset,
                    Found = $"{table.Size} bytes in entries of {table.EntrySize}",
                    Expected = $"entries of {size} bytes, each with a place in {code}",
                    Help = "Link the file again, or strip the relocations.",
                };
                return false;
            }
        }

        error = read.Count > 0 ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.RelocationsMissing, "the file keeps no relocations of its code") with
        {
            Help = "Give an object file, or link with --emit-relocs (ld -q).",
        };
        places = error is null ? read : null;
        return error is null;
    }

    private bool TryRead(ReadOnlySpan<byte> table, ElfSection code, bool is64, List<ulong> places)
    {
        for (int at = 0; at < table.Length; at += ElfRelocation.Size(is64))
        {
            ElfRelocation entry = ElfRelocation.Read(table[at..], is64);
            if (entry.Type == RelocationField.None)
            {
                continue;
            }

            // Of an object file the place counts from its section, of a linked one it is an address.
            ulong offset = _placed.Placement is null ? unchecked(entry.Place - code.Address.Value) : entry.Place;
            if (!FileRange.Fits(offset, 1, _placed.Elf.GetBytes(code).Length))
            {
                return false;
            }

            if (_placed.IsResolved(code.Address + (long)offset, 1))
            {
                places.Add(code.Address.Value + offset);
            }
        }

        return true;
    }

    private void Scan(ElfSection section, List<ulong> places, List<ulong> starts)
    {
        byte[] code = _placed.Elf.GetBytes(section).ToArray();
        ulong first = section.Address.Value;
        var reader = new ByteArrayCodeReader(code);
        var decoder = Decoder.Create(_bitness, reader);
        int next = 0;
        for (int i = 0; i < starts.Count && next < places.Count; i++)
        {
            ulong end = Math.Min(i + 1 < starts.Count ? starts[i + 1] : ulong.MaxValue, first + (ulong)code.Length);
            if (starts[i] < first || starts[i] >= end || places[next] >= end)
            {
                continue;
            }

            reader.Position = (int)(starts[i] - first);
            decoder.IP = starts[i];
            while (decoder.IP < end && next < places.Count && places[next] < end)
            {
                ulong at = decoder.IP;
                decoder.Decode(out Instruction instruction);
                if (instruction.IsInvalid)
                {
                    // Data: decoding goes on behind its first byte.
                    reader.Position = (int)(at + 1 - first);
                    decoder.IP = at + 1;
                    continue;
                }

                for (; next < places.Count && places[next] < decoder.IP; next++)
                {
                    if (places[next] < at || !TryLook(instruction, decoder.GetConstantOffsets(instruction), places[next], code, first))
                    {
                        LookAtData(code, first, places[next]);
                    }
                }
            }
        }

        for (; next < places.Count; next++)
        {
            LookAtData(code, first, places[next]);
        }
    }

    /// <summary>Looks at a field of an instruction; <see langword="false"/> where the place is none of its fields.</summary>
    private bool TryLook(in Instruction instruction, ConstantOffsets offsets, ulong place, byte[] code, ulong first)
    {
        bool displacement = offsets.HasDisplacement && instruction.IP + (uint)offsets.DisplacementOffset == place;
        bool immediate = offsets.HasImmediate && instruction.IP + (uint)offsets.ImmediateOffset == place;
        if (!displacement && !immediate)
        {
            return false;
        }

        if (immediate && (instruction.IsCallNear || instruction.IsJmpShortOrNear || instruction.IsJccShortOrNear))
        {
            if (_listed.TryGetSlotOfFunction(instruction.NearBranchTarget, out int called))
            {
                Note(instruction, called, instruction.IsCallNear);
            }

            return true;
        }

        bool direct = instruction.MemoryBase is Register.None or Register.RIP && instruction.MemoryIndex == Register.None;
        if (displacement && direct)
        {
            ulong address = instruction.MemoryDisplacement64 & (_bitness == 32 ? uint.MaxValue : ulong.MaxValue);
            bool transfers = (instruction.IsCallNearIndirect || instruction.IsJmpNearIndirect)
                && code.AsSpan((int)(instruction.IP - first), instruction.Length) is [0xff, ..] or [0x2e or 0x3e or 0xf2, 0xff, ..];
            if (_listed.TryGetSlotOfWord(address, out int slot) || _listed.TryGetSlotOfFunction(address, out _))
            {
                Note(instruction, slot, transfers && slot >= 0);
            }

            return true;
        }

        return LookAtData(code, first, place);
    }

    private void Note(in Instruction instruction, int slot, bool isSite)
    {
        if (!isSite)
        {
            NoteOther(instruction.IP);
            return;
        }

        _sites.Add(new PatchSite(
            instruction.IP, slot, instruction.Length, _layout[slot].Convention.DestroyedBy(_bitness)));
    }

    /// <summary>
    /// A place that is no call: whether its bytes name something listed, as an address of 4 or 8 bytes or as a distance from their end.
    /// </summary>
    private bool LookAtData(byte[] code, ulong first, ulong place)
    {
        ReadOnlySpan<byte> rest = code.AsSpan((int)(place - first));
        if (rest.Length >= 4)
        {
            int value = BinaryPrimitives.ReadInt32LittleEndian(rest);
            ulong mask = _bitness == 32 ? uint.MaxValue : ulong.MaxValue;
            bool names = IsListed(unchecked((ulong)value) & mask) || IsListed(unchecked(place + 4 + (ulong)value) & mask)
                || (_bitness == 64 && rest.Length >= 8 && IsListed(BinaryPrimitives.ReadUInt64LittleEndian(rest)));
            if (names)
            {
                NoteOther(place);
            }
        }

        return true;
    }

    private bool IsListed(ulong address) => _listed.TryGetSlotOfWord(address, out _) || _listed.TryGetSlotOfFunction(address, out _);

    private void NoteOther(ulong address)
    {
        _firstOther = _others++ == 0 ? new VirtualAddress(address) : _firstOther;
    }
}
