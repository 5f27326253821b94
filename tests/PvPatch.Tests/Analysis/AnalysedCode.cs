using Iced.Intel;
using PvPatch.Analysis;
using PvPatch.Images;

namespace PvPatch.Tests.Analysis;

/// <summary>A few functions, assembled one behind the other.</summary>
internal sealed class AnalysedCode
{
    public const ulong Start = 0x100000;

    private AnalysedCode(byte[] bytes, IReadOnlyDictionary<string, ulong> labels, int bitness)
    {
        Bytes = bytes;
        Labels = labels;
        Image = new CodeImage(Start, bytes, bitness);
    }

    public byte[] Bytes { get; }

    public IReadOnlyDictionary<string, ulong> Labels { get; }

    public CodeImage Image { get; }

    public VirtualAddress this[string label] => Labels[label];

    /// <summary>
    /// Assembles code; <paramref name="write"/> gets a way to set labels (those it makes itself are no others' business) that can be asked
    /// for by name.
    /// </summary>
    public static AnalysedCode Of(Action<Assembler, NamedLabels> write, int bitness = 64)
    {
        var assembler = new Assembler(bitness);
        var labels = new NamedLabels(assembler);
        write(assembler, labels);
        using var stream = new MemoryStream();
        AssemblerResult result = assembler.Assemble(new StreamCodeWriter(stream), Start, BlockEncoderOptions.ReturnNewInstructionOffsets);
        return new AnalysedCode(stream.ToArray(), labels.All.ToDictionary(static l => l.Key, l => result.GetLabelRIP(l.Value)), bitness);
    }

    public static AnalysedCode Of(Action<Assembler> write, int bitness = 64) => Of((a, _) => write(a), bitness);

    public static AnalysedCode OfBytes(byte[] bytes, int bitness = 64) => new(bytes, new Dictionary<string, ulong>(), bitness);

    /// <summary>The instructions from an address on, for messages.</summary>
    public string Disassemble(ulong from)
    {
        var decoder = Decoder.Create(Image.Bitness, Bytes[(int)(from - Start)..], from);
        var text = new System.Text.StringBuilder();
        for (int i = 0; i < 60; i++)
        {
            Instruction instruction = decoder.Decode();
            text.Append(System.Globalization.CultureInfo.InvariantCulture, $"{instruction.IP:x} {instruction}\n");
        }

        return text.ToString();
    }

    public FunctionEffects Effects(string? label = null, ICodeFacts? facts = null) =>
        new CodeAnalyzer(Image, facts).EffectsOf(label is null ? Start : Labels[label]);

    public SiteLiveness Liveness(string? label = null, ICodeFacts? facts = null, PvPatch.Machine.RegisterSet? atReturn = null) =>
        new CodeAnalyzer(Image, facts).LivenessAt(label is null ? Start : Labels[label], atReturn);
}

/// <summary>Labels by name, made when they are first spoken of.</summary>
internal sealed class NamedLabels(Assembler assembler)
{
    public Dictionary<string, Label> All { get; } = [];

    public Label this[string name]
    {
        get
        {
            if (!All.TryGetValue(name, out Label label))
            {
                label = assembler.CreateLabel(name);
                All.Add(name, label);
            }

            return label;
        }
    }

    /// <summary>Puts a label before the next instruction.</summary>
    public void Here(string name)
    {
        Label label = this[name];
        assembler.Label(ref label);
        All[name] = label;
    }
}
