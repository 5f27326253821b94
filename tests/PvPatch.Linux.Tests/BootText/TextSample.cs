using System.Buffers.Binary;
using System.Text;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>
/// A small kernel whose text is predicted: one section of code that a test fills, tables of distances, symbols, alternatives.
/// </summary>
internal sealed class TextSample
{
    public const ulong Code = 0xffffffff81800000;
    public const ulong Data = 0xffffffff82800000;
    public const int CodeSize = 0x4000;
    private const ulong Tables = 0xffffffff83400000;

    private readonly byte[] _code = new byte[CodeSize];
    private readonly byte[] _data = new byte[0x1000];
    private readonly Dictionary<string, List<ulong>> _tables = [];
    private readonly SyntheticKernel _kernel = SyntheticKernel.Complete();
    private readonly StringBuilder _symbols = new();

    public TextSample() => _code.AsSpan().Fill(0xcc);

    /// <summary>The kernel around it.</summary>
    public SyntheticKernel Kernel => _kernel;

    public Dictionary<ulong, ulong> StaticCalls { get; } = [];

    /// <summary>Features that are on; null where none is known.</summary>
    public int[]? Features { get; set; } = [];

    public NopStyle? Nops { get; set; } = NopStyle.P6;

    public ulong? ReturnThunk { get; set; }

    public ulong? ItsPage { get; set; }

    public TextSample Put(ulong address, params byte[] bytes)
    {
        bytes.CopyTo(address < Data ? _code : _data, (int)(address - (address < Data ? Code : Data)));
        return this;
    }

    /// <summary>Puts a branch: opcode bytes and a distance of 32 bits.</summary>
    public TextSample PutBranch(ulong address, ulong target, params byte[] opcode) =>
        Put(address, [.. opcode, .. BitConverter.GetBytes((int)(target - (address + (ulong)opcode.Length + 4)))]);

    /// <summary>Adds addresses to a table of distances, each relative to itself.</summary>
    public TextSample Record(string section, params ulong[] addresses)
    {
        if (!_tables.TryGetValue(section, out List<ulong>? list))
        {
            _tables.Add(section, list = []);
        }

        list.AddRange(addresses);
        return this;
    }

    public TextSample Symbol(string name, ulong address)
    {
        _symbols.Append($"{address:x16} T {name}\n");
        return this;
    }

    public TextKernel Open(TextRules rules)
    {
        _kernel.Others.Clear();
        _kernel.Others.Add((".extra.text", true, Code, _code));
        _kernel.Others.Add((".extra.data", false, Data, _data));
        ulong at = Tables;
        foreach ((string name, List<ulong> addresses) in _tables)
        {
            byte[] table = new byte[addresses.Count * sizeof(int)];
            for (int i = 0; i < addresses.Count; i++)
            {
                BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(i * 4), unchecked((int)(addresses[i] - (at + (ulong)(i * 4)))));
            }

            _kernel.Others.Add((name, false, at, table));
            at += 0x10000;
        }

        string map = $"{Code:x16} T _text\n{_symbols}{Code + CodeSize:x16} T _etext\n";
        var options = new KernelOptions { Symbols = KernelSymbols.ReadSystemMap(Encoding.ASCII.GetBytes(map)) };
        Assert.True(KernelImage.TryOpen(_kernel.Elf(), options, out KernelImage? image, out PatchDiagnostic? error), error?.ToString());
        return TextKernel.Of(image, rules);
    }

    /// <summary>Predicts the text with one mechanism.</summary>
    public (TextImage Text, IReadOnlyList<PatchDiagnostic> Findings) Run(TextRules rules, params TextMechanism[] mechanisms)
    {
        TextKernel kernel = Open(rules);
        var run = new TextRun(kernel, State(), TextImage.Of(kernel.Elf, VdsoImages.Find(kernel)), new DiagnosticList());
        foreach (TextMechanism mechanism in mechanisms)
        {
            TextPredictor.Find(mechanism)!.Apply(run);
        }

        return (run.Text, run.Findings.ToList());
    }

    /// <summary>The bytes predicted at an address, where nothing is wrong.</summary>
    public string Predict(TextRules rules, TextMechanism mechanism, ulong address, int length)
    {
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = Run(rules, mechanism);
        Assert.Empty(findings);
        Assert.True(text.TryGet(address, length, out ReadOnlySpan<byte> bytes));
        return text.HasOpen(address, length) ? "open" : HexBytes.Format(bytes);
    }

    /// <summary>AT&amp;T source as bytes at an address; other addresses are symbols.</summary>
    public static string Assembled(string source, ulong address, params (string Name, ulong Address)[] symbols)
    {
        ElfImage elf = ElfImage.Read(Tools.Link(Tools.Assemble($".text\n{source}\n", 64), 64, symbols, (".text", address)));
        Assert.True(elf.TryGetSection(".text", out ElfSection? text));
        return HexBytes.Format(elf.GetBytes(text).Span);
    }

    private BootState State()
    {
        uint[] words = new uint[24];
        foreach (int feature in (Features ?? []).Append(FeatureWords.Always))
        {
            words[feature / 32] |= 1u << (feature % 32);
        }

        return new BootState
        {
            Features = Features is null ? FeatureWords.Unknown : FeatureWords.Of(words),
            Nops = Nops,
            ReturnThunk = ReturnThunk is ulong thunk ? new VirtualAddress(thunk) : null,
            ItsPage = ItsPage is ulong page ? new VirtualAddress(page) : null,
            StaticCalls = StaticCalls.ToDictionary(static c => new VirtualAddress(c.Key), static c => new VirtualAddress(c.Value)),
        };
    }
}
