using System.Buffers.Binary;
using PvPatch.Analysis;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Audit;

/// <summary>
/// Facts of a kernel image about its own code: symbols, prototypes, sites, and the tables of its exceptions, bugs, static keys and
/// alternatives.
/// </summary>
internal sealed class KernelCodeFacts : ICodeFacts
{
    private const int WarnFlag = 1; // BUGFLAG_WARNING
    private const int LongestFormat = 4096;

    private const int MostResults = 2;

    private static readonly VirtualAddress[] s_none = [];
    private static readonly RegisterSet s_destroyed = CallConvention.KernelSysV.DestroyedBy(64);
    private static readonly FunctionFacts s_nothing = new() { Destroys = RegisterSet.None, Reads = RegisterSet.None };

    private readonly KernelImage _image;
    private readonly BtfPrototypes _types;
    private readonly Dictionary<ulong, FunctionFacts> _functions = [];
    private readonly Dictionary<ulong, FunctionFacts> _calls = [];
    private readonly Dictionary<ulong, VirtualAddress[]> _edges = [];
    private readonly Dictionary<ulong, (ulong Start, ulong To)> _ends = [];
    private readonly Dictionary<ulong, bool> _bugs = [];

    private readonly (VirtualAddress Start, VirtualAddress End)? _entryText;

    public KernelCodeFacts(KernelImage image)
    {
        _image = image;
        _entryText = image.Targets.Find("__entry_text_start") is VirtualAddress start
            && image.Targets.Find("__entry_text_end") is VirtualAddress end ? (start, end) : null;
        _types = new BtfPrototypes(image.Elf);
        Slots = new SlotPrototypes(image, _types);
        ReadSymbols();
        ReadSites();
        ReadBugs();
        ReadExceptions();
        ReadStaticKeys();
        ReadAlternatives();
    }

    public SlotPrototypes Slots { get; }

    public CallConvention? Convention => CallConvention.KernelSysV;

    public FunctionFacts? FunctionAt(VirtualAddress address) => _functions.GetValueOrDefault(address.Value);

    public FunctionFacts? CalledFrom(VirtualAddress instruction) => _calls.GetValueOrDefault(instruction.Value);

    public IReadOnlyList<VirtualAddress> EdgesOf(VirtualAddress instruction) => _edges.GetValueOrDefault(instruction.Value, s_none);

    public VirtualAddress NextOf(VirtualAddress instruction, VirtualAddress following) =>
        _ends.TryGetValue(following.Value, out (ulong Start, ulong To) end) && instruction.Value >= end.Start ? end.To : following;

    /// <summary>
    /// A warning comes back, a bug does not. Five bytes that Xen traps (ud2 and the letters xen) stand before the instruction it is to
    /// emulate.
    /// </summary>
    public VirtualAddress? AfterTrap(VirtualAddress instruction, VirtualAddress following)
    {
        if (_image.Code.TryGetBytes(following, 3, out Span<byte> prefix) && prefix is [0x78, 0x65, 0x6e])
        {
            return following + 3;
        }

        return _bugs.TryGetValue(instruction.Value, out bool warns) && warns ? following : null;
    }

    /// <summary>The arguments that a constant format of printk's kind takes.</summary>
    public int? VariableArguments(VirtualAddress callee, int fixedCount, VirtualAddress? lastFixed)
    {
        if (lastFixed is not VirtualAddress format || !_image.Elf.TryGetSectionAt(format, out ElfSection? section)
            || !section.HasFileContent)
        {
            return null;
        }

        ReadOnlySpan<byte> text = _image.Elf.GetBytes(section).Span[(int)(format - section.Address)..];
        int end = text[..Math.Min(text.Length, LongestFormat)].IndexOf((byte)0);
        return end < 0 ? null : CountArguments(text[..end]);
    }

    /// <summary>
    /// What is live where the function around an address returns: its result (both registers, where its prototype is not known) and what
    /// every function keeps. Everything in the entry text: the only assembler code that has sites.
    /// </summary>
    public RegisterSet LiveAtReturn(VirtualAddress address)
    {
        if (_entryText is not (VirtualAddress start, VirtualAddress end) || (address >= start && address < end)
            || _image.Symbols is null || !_image.Symbols.TryGetName(address, out string? name, out _))
        {
            return RegisterSet.All;
        }

        int suffix = name.IndexOf('.', StringComparison.Ordinal);
        int results = _types.OfFunction(suffix > 0 ? name[..suffix] : name)?.Results ?? MostResults;
        return SlotPrototypes.Results(results) | ~s_destroyed;
    }

    /// <summary>The conversions in a format, each star counted too; <see langword="null"/> for text that is no format.</summary>
    internal static int? CountArguments(ReadOnlySpan<byte> format)
    {
        int count = 0;
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] is < 0x20 and not ((byte)'\n' or (byte)'\t' or (byte)'\r' or 1) or >= 0x7f)
            {
                return null;
            }

            if (format[i] != '%')
            {
                continue;
            }

            i++;
            while (i < format.Length && "-+ #0123456789.*hlLqjzt".Contains((char)format[i]))
            {
                count += format[i] == '*' ? 1 : 0;
                i++;
            }

            count += i < format.Length && format[i] == '%' ? 0 : 1;
        }

        return count;
    }

    private void ReadSymbols()
    {
        foreach (KernelSymbol symbol in _image.Symbols?.All ?? [])
        {
            // Labels within functions begin with a dot; cold parts of functions jump back into them.
            if (symbol.IsFunction && symbol.Name[0] != '.' && !symbol.Name.Contains(".cold", StringComparison.Ordinal))
            {
                FunctionFacts facts = FactsOf(symbol.Name, _types.OfFunction(symbol.Name));
                if (facts != FunctionFacts.Plain || !_functions.ContainsKey(symbol.Address.Value))
                {
                    _functions[symbol.Address.Value] = facts;
                }
            }
        }
    }

    private static FunctionFacts FactsOf(string name, FunctionPrototype? prototype)
    {
        const string Thunk = "_thunk_";
        const string StaticCall = "__SCT__";
        if (name.StartsWith("__x86_indirect", StringComparison.Ordinal) && name.Contains(Thunk, StringComparison.Ordinal))
        {
            string register = name[(name.LastIndexOf(Thunk, StringComparison.Ordinal) + Thunk.Length)..];
            return new FunctionFacts
            {
                Role = FunctionRole.Indirect,
                Reads = RegisterSet.TryParse(register, out RegisterSet reads) && reads.Count == 1 ? reads : RegisterSet.AllGeneral
            };
        }

        if (name.EndsWith("_return_thunk", StringComparison.Ordinal))
        {
            return new FunctionFacts { Role = FunctionRole.Return };
        }

        if (name is "__fentry__" or "mcount")
        {
            return s_nothing; // a nop, or a tracer that keeps everything
        }

        // A static call's trampoline jumps to another function tomorrow: any of the convention. preempt_schedule keeps everything.
        if (!name.StartsWith(StaticCall, StringComparison.Ordinal))
        {
            return prototype is FunctionPrototype known
                ? new FunctionFacts { Reads = SlotPrototypes.Registers(known.Arguments) } : FunctionFacts.Plain;
        }

        return name[StaticCall.Length..] switch
        {
            "preempt_schedule" or "preempt_schedule_notrace" => s_nothing,
            "might_resched" or "cond_resched" => new FunctionFacts { Destroys = s_destroyed, Reads = RegisterSet.None },
            _ => new FunctionFacts { Destroys = s_destroyed },
        };
    }

    private void ReadSites()
    {
        foreach (PatchSite site in _image.Sites.Sites)
        {
            OpSlot slot = _image.Layout[site.Slot];
            _calls[site.Address.Value] = new FunctionFacts
            {
                Destroys = slot.Convention.DestroyedBy(64),
                Reads = Slots.Of(slot) is FunctionPrototype prototype ? SlotPrototypes.Registers(prototype.Arguments) : null,
            };
        }
    }

    /// <summary>The bug table: records of 12 bytes (16 with a format), the address first, relative to itself, the flags last.</summary>
    private void ReadBugs()
    {
        ReadOnlySpan<byte> table = Table("bug_table", out ulong start);
        foreach (int stride in (ReadOnlySpan<int>)[12, 16])
        {
            _bugs.Clear();
            int traps = 0;
            for (int at = 0; at + stride <= table.Length; at += stride)
            {
                ulong address = Relative(table, start, at);
                traps += _image.Code.TryGetBytes(address, 2, out Span<byte> code)
                    && code is [0x0f, 0x0b or 0xb9] or [0x67, 0x48] or [0x48, 0x0f] ? 1 : 0;
                _bugs[address] = (BinaryPrimitives.ReadUInt16LittleEndian(table[(at + stride - 2)..]) & WarnFlag) != 0;
            }

            if (traps * 10L >= table.Length / stride * 9L)
            {
                return;
            }
        }

        _bugs.Clear();
    }

    /// <summary>
    /// The exception table: records of 12 bytes that begin with instruction and fix-up, each relative to itself. Where the fix-up is the
    /// next instruction, the handler gives registers the values the instruction would have: no other way.
    /// </summary>
    private void ReadExceptions()
    {
        ReadOnlySpan<byte> table = Table("ex_table", out ulong start);
        for (int at = 0; at + 12 <= table.Length; at += 12)
        {
            ulong address = Relative(table, start, at);
            ulong fixup = Relative(table, start, at + 4);
            if (fixup - address > 15)
            {
                AddEdge(address, fixup);
            }
        }
    }

    /// <summary>
    /// The jump table: records of 16 bytes, address and target each relative to itself. A nop or a jump stands there, and the other may.
    /// </summary>
    private void ReadStaticKeys()
    {
        ReadOnlySpan<byte> table = Table("jump_table", out ulong start);
        for (int at = 0; at + 16 <= table.Length; at += 16)
        {
            ulong address = Relative(table, start, at);
            if (_image.Code.TryGetBytes(address, 2, out Span<byte> code))
            {
                AddEdge(address, Relative(table, start, at + 4));
                AddEdge(address, address + (code[0] is 0xeb or 0x66 ? 2UL : 5UL));
            }
        }
    }

    private void ReadAlternatives()
    {
        if (_image.Alternatives is not AltInstrTable alternatives && !AltInstrTable.TryRead(_image.Elf, out alternatives!, out _))
        {
            return;
        }

        foreach (AltInstr record in alternatives.Records)
        {
            if (record.IsDirectCall || _image.Sites.IndexContaining(record.Address) >= 0)
            {
                continue; // what may stand at a site is said there
            }

            ulong end = (record.Address + record.Length).Value;
            AddEdge(record.Address.Value, record.ReplacementLength == 0 ? end : record.ReplacementAddress.Value);
            if (record.ReplacementLength != 0)
            {
                _ends[(record.ReplacementAddress + record.ReplacementLength).Value] = (record.ReplacementAddress.Value, end);
            }
        }
    }

    private void AddEdge(ulong from, ulong to)
    {
        VirtualAddress[] known = _edges.GetValueOrDefault(from, s_none);
        if (!known.Contains(to))
        {
            _edges[from] = [.. known, to];
        }
    }

    /// <summary>A table by its section, or by the symbols of its start and end.</summary>
    private ReadOnlySpan<byte> Table(string name, out ulong start)
    {
        start = 0;
        if (_image.Elf.TryGetSection($"__{name}", out ElfSection? section) && section.HasFileContent)
        {
            start = section.Address.Value;
            return _image.Elf.GetBytes(section).Span;
        }

        if (_image.Targets.Find($"__start___{name}") is not VirtualAddress first
            || _image.Targets.Find($"__stop___{name}") is not VirtualAddress last
            || last - first is <= 0 or > int.MaxValue || !_image.Elf.TryGetBytes(first, (int)(last - first), out Memory<byte> bytes))
        {
            return default;
        }

        start = first.Value;
        return bytes.Span;
    }

    private static ulong Relative(ReadOnlySpan<byte> table, ulong start, int at) =>
        unchecked(start + (ulong)at + (ulong)BinaryPrimitives.ReadInt32LittleEndian(table[at..]));
}
