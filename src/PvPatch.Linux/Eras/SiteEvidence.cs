using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Eras;

/// <summary>Forms of sites that some eras have and others have not: around the call or jump.</summary>
[Flags]
internal enum SiteShapes
{
    None = 0,

    /// <summary>32-bit, push ecx, edx around a call, 10 bytes (C code to 2.6.29).</summary>
    Saves10 = 1 << 0,

    /// <summary>32-bit, one site with two calls, 18 bytes (2.6.20, 2.6.21).</summary>
    TwoCalls = 1 << 1,

    /// <summary>32-bit, push ecx, edx around a call with a cs prefix, 11 bytes (assembly code of 2.6.20, 2.6.21).</summary>
    Saves11 = 1 << 2,

    /// <summary>32-bit, push eax, ecx, edx, 13 bytes (assembly code of 2.6.22 to 2.6.24).</summary>
    Saves13 = 1 << 3,

    /// <summary>32-bit, push eax, edi, ecx, edx, 15 bytes (assembly code of 2.6.25 to 2.6.29).</summary>
    Saves15 = 1 << 4,

    /// <summary>64-bit, push rdi around a call, 8 bytes (C code of 2.6.25 to 2.6.29).</summary>
    SavesRdi = 1 << 5,

    /// <summary>
    /// 64-bit, four pushes around a call, or a jump with a cs prefix, through an absolute address (assembly code of 2.6.25, 2.6.26).
    /// </summary>
    Absolute26 = 1 << 6,

    /// <summary>64-bit, nine pushes around a call, 32 bytes (assembly code of 2.6.27 to 2.6.29).</summary>
    Saves32 = 1 << 7,

    /// <summary>64-bit, a bare call through an absolute address, 7 bytes (C code of 2.6.30 to 5.12).</summary>
    Absolute7 = 1 << 8,

    /// <summary>Pushes that leave out what callee-save functions keep, or a bare swapgs (assembly code of 2.6.30 to 5.12).</summary>
    SavesResult = 1 << 9,

    /// <summary>Any push within a site.</summary>
    AnySave = 1 << 10,
}

/// <summary>Evidence of the kernel's era in an image's site table and in the bytes at its sites. Pure.</summary>
internal sealed class SiteEvidence
{
    /// <summary>Names of the forms in messages.</summary>
    public static readonly (SiteShapes Shape, string Text)[] ShapeTexts =
    [
        (SiteShapes.Saves10, "sites of 10 bytes that save ecx and edx"),
        (SiteShapes.TwoCalls, "sites of two calls, as only 2.6.20 and 2.6.21 have them"),
        (SiteShapes.Saves11, "sites of 11 bytes that save ecx and edx, as only 2.6.20 and 2.6.21 have them"),
        (SiteShapes.Saves13, "sites of 13 bytes that save eax, ecx and edx"),
        (SiteShapes.Saves15, "sites of 15 bytes that save four registers"),
        (SiteShapes.SavesRdi, "sites of 8 bytes that save rdi"),
        (SiteShapes.Absolute26, "assembly sites through absolute addresses"),
        (SiteShapes.Saves32, "sites of 32 bytes that save nine registers"),
        (SiteShapes.Absolute7, "calls of 7 bytes through absolute addresses"),
        (SiteShapes.SavesResult, "sites that save the result register only, or hold a bare swapgs"),
        (SiteShapes.AnySave, "sites that save registers"),
    ];

    private readonly (byte Type, ulong Operand)[] _operands;
    private readonly HashSet<byte> _jumps;
    private readonly HashSet<byte> _calls;

    private SiteEvidence(
        int bitness, int count, byte highest, SiteShapes shapes, (byte, ulong)[] operands, HashSet<byte> calls, HashSet<byte> jumps)
    {
        Bitness = bitness;
        Count = count;
        HighestType = highest;
        Shapes = shapes;
        _operands = operands;
        _calls = calls;
        _jumps = jumps;
    }

    public int Bitness { get; }

    /// <summary>Number of sites.</summary>
    public int Count { get; }

    public byte HighestType { get; }

    public SiteShapes Shapes { get; }

    /// <summary>The types whose sites call.</summary>
    public IReadOnlySet<byte> CalledTypes => _calls;

    /// <summary>The types whose sites jump.</summary>
    public IReadOnlySet<byte> JumpedTypes => _jumps;

    /// <summary>Reads the table of an image of whatever era: all of a bitness have the same fields at the same places.</summary>
    public static bool TryRead(
        ElfImage elf, CodeImage code, [NotNullWhen(true)] out SiteEvidence? evidence, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        evidence = null;
        ParaInstructionsFormat format = elf.Bitness == 64 ? ParaInstructionsFormat.X64Since420 : ParaInstructionsFormat.I386;
        if (!elf.TryGetSection(KernelEraDetector.SiteTableSection, out ElfSection? section, out error)
            || !format.TryRead(elf.GetBytes(section).Span, out ParaInstruction[]? records, out error, section.FileOffset))
        {
            return false;
        }

        evidence = Read(code, records);
        if (evidence._operands.Length == 0)
        {
            evidence = null;
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the sites do not tell where the ops tables are") with
            {
                Found = $"{records.Length} sites, none of them a call or jump through a word",
                Expected = "indirect calls through the ops tables at most sites",
                Help = "An image that is patched already has no indirect calls left: give the original image.",
            };
            return false;
        }

        return true;
    }

    public static SiteEvidence Read(CodeImage code, ReadOnlySpan<ParaInstruction> records)
    {
        var operands = new List<(byte, ulong)>(records.Length);
        HashSet<byte> calls = [];
        HashSet<byte> jumps = [];
        SiteShapes shapes = SiteShapes.None;
        byte highest = 0;
        foreach (ref readonly ParaInstruction record in records)
        {
            highest = Math.Max(highest, record.Type);
            if (SiteOperand.TryRead(code, record, out ulong operand, out bool isJump))
            {
                operands.Add((record.Type, operand));
                (isJump ? jumps : calls).Add(record.Type);
            }

            if (record.Length > 0 && code.TryGetBytes(record.Address, record.Length, out Span<byte> site))
            {
                shapes |= code.Bitness == 64 ? Shape64(site) : Shape32(site);
            }
        }

        return new SiteEvidence(code.Bitness, records.Length, highest, shapes, [.. operands], calls, jumps);
    }

    /// <summary>
    /// The address of a group's word 0 that most sites of the group agree on: operand - word * index. Sites whose index is negative are not
    /// of the group.
    /// </summary>
    /// <param name="indexOf">The index of a type within the group.</param>
    /// <param name="address">The address; 0 where there is no site.</param>
    /// <param name="voices">Number of sites that agree on it.</param>
    /// <param name="of">Number of sites of the group.</param>
    public void Vote(Func<byte, int> indexOf, out ulong address, out int voices, out int of)
    {
        var votes = new Dictionary<ulong, int>();
        of = 0;
        foreach ((byte type, ulong operand) in _operands)
        {
            int index = indexOf(type);
            if (index >= 0)
            {
                ulong candidate = unchecked(operand - (ulong)(index * (Bitness / 8)));
                votes[candidate] = votes.GetValueOrDefault(candidate) + 1;
                of++;
            }
        }

        (address, voices) = votes.OrderByDescending(static v => v.Value).ThenBy(static v => v.Key).FirstOrDefault();
    }

    /// <summary>Whether most sites of a group go through the words that their types say; one record may lie.</summary>
    /// <param name="words">The address of each type's word; 0 where it is not known.</param>
    /// <param name="isOfGroup">Whether a type is of the group.</param>
    public bool GoesThrough(IReadOnlyList<VirtualAddress> words, Func<byte, bool> isOfGroup)
    {
        int all = 0;
        int others = 0;
        foreach ((byte type, ulong operand) in _operands.Where(o => isOfGroup(o.Type)))
        {
            all++;
            others += type >= words.Count || words[type].Value != operand ? 1 : 0;
        }

        return others * 2 <= all;
    }

    /// <summary>The arrangement of the slots: by symbols, else by whether all sites agree on one table.</summary>
    public SlotPlacement PlacementOf(KernelSymbols? symbols)
    {
        bool Has(string name) => symbols is not null && symbols.TryGetAddress(name, out _);
        if (Has("pv_ops"))
        {
            return SlotPlacement.OneTable;
        }

        if (Has("pv_cpu_ops") || Has("pv_irq_ops") || Has("pv_mmu_ops"))
        {
            return SlotPlacement.TableByTable;
        }

        if ((Shapes & (SiteShapes.TwoCalls | SiteShapes.Saves11)) != 0)
        {
            return SlotPlacement.WordByWord;
        }

        // One record in a hundred may lie. With several tables the sites of the largest are far from being all.
        Vote(static type => type, out _, out int voices, out int of);
        return (of - voices) * 100 <= of ? SlotPlacement.OneTable
            : this is { Bitness: 32, HighestType: <= 6 } && AllTypesHaveAWord() ? SlotPlacement.WordByWord
            : SlotPlacement.TableByTable;
    }

    private bool AllTypesHaveAWord()
    {
        for (int type = 0; type <= HighestType; type++)
        {
            Vote(t => t == type ? 0 : -1, out _, out int voices, out int of);
            if (voices != of)
            {
                return false;
            }
        }

        return true;
    }

    private static SiteShapes Shape32(ReadOnlySpan<byte> site) => site switch
    {
        // push ecx; push edx; call [m]; pop edx; pop ecx
        [0x51, 0x52, 0xff, 0x15, _, _, _, _, 0x5a, 0x59] => SiteShapes.Saves10 | SiteShapes.AnySave,

        // the same with push eax; call [m]; pop eax within
        [0x51, 0x52, 0xff, 0x15, _, _, _, _, 0x50, 0xff, 0x15, _, _, _, _, 0x58, 0x5a, 0x59] => SiteShapes.TwoCalls | SiteShapes.AnySave,
        [0x51, 0x52, 0x2e, 0xff, 0x15, _, _, _, _, 0x5a, 0x59] => SiteShapes.Saves11 | SiteShapes.AnySave,
        [0x50, 0x51, 0x52, 0x2e, 0xff, 0x15, _, _, _, _, 0x5a, 0x59, 0x58] => SiteShapes.Saves13 | SiteShapes.AnySave,
        [0x50, 0x57, 0x51, 0x52, 0x2e, 0xff, 0x15, _, _, _, _, 0x5a, 0x59, 0x5f, 0x58] => SiteShapes.Saves15 | SiteShapes.AnySave,

        // push edi; push edx (and eax before): ecx is not among them
        [0x57, 0x52, 0x2e, 0xff, 0x15, _, _, _, _, 0x5a, 0x5f] => SiteShapes.SavesResult | SiteShapes.AnySave,
        [0x50, 0x57, 0x52, 0x2e, 0xff, 0x15, _, _, _, _, 0x5a, 0x5f, 0x58] => SiteShapes.SavesResult | SiteShapes.AnySave,
        _ => SiteShapes.None,
    };

    private static SiteShapes Shape64(ReadOnlySpan<byte> site) => site switch
    {
        // push rdi; call [rip+m]; pop rdi
        [0x57, 0xff, 0x15, _, _, _, _, 0x5f] => SiteShapes.SavesRdi | SiteShapes.AnySave,

        // push rax, rdi, rcx, rdx; call [abs], with or without cs
        [0x50, 0x57, 0x51, 0x52, 0x2e, 0xff, 0x14, 0x25, _, _, _, _, 0x5a, 0x59, 0x5f, 0x58] => SiteShapes.Absolute26 | SiteShapes.AnySave,
        [0x50, 0x57, 0x51, 0x52, 0xff, 0x14, 0x25, _, _, _, _, 0x5a, 0x59, 0x5f, 0x58] => SiteShapes.Absolute26 | SiteShapes.AnySave,
        [0x2e, 0xff, 0x24, 0x25, _, _, _, _] => SiteShapes.Absolute26,

        // push rax, rcx, rdx, rsi, rdi, r8 to r11; call [rip+m]
        [0x50, 0x51, 0x52, 0x56, 0x57, 0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53, 0xff, 0x15, ..] =>
            SiteShapes.Saves32 | SiteShapes.AnySave,
        [0xff, 0x14, 0x25, _, _, _, _] => SiteShapes.Absolute7,

        // push rax; call [rip+m]; pop rax
        [0x50, 0xff, 0x15, _, _, _, _, 0x58] => SiteShapes.SavesResult | SiteShapes.AnySave,
        [0x0f, 0x01, 0xf8] => SiteShapes.SavesResult,
        _ => SiteShapes.None,
    };
}
