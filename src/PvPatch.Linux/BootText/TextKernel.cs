using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>A kernel as the mechanisms see it: its image, its tables, and the rules of its text.</summary>
internal sealed class TextKernel
{
    private readonly (ulong First, ulong Last, bool IsCode)[] _allocated;
    private bool _hasRead;
    private AltInstrTable? _alternatives;
    private PatchDiagnostic? _alternativesError;
    private MitigationFeatures? _mitigations;

    private TextKernel(KernelImage image, TextRules rules)
    {
        Image = image;
        Rules = rules;
        _allocated =
        [
            .. image.Elf.Sections.Where(static s => s.IsAllocated && s.Size > 0 && (s.Flags & ElfSectionAttributes.ThreadLocal) == 0)
                .Select(static s => (s.Address.Value, s.Address.Value + (s.Size - 1), TextImage.IsText(s))),
        ];
    }

    /// <summary>The kernel.</summary>
    public KernelImage Image { get; }

    /// <summary>The rules.</summary>
    public TextRules Rules { get; }

    /// <summary>The file.</summary>
    public ElfImage Elf => Image.Elf;

    /// <summary>A kernel with the rules that its image shows.</summary>
    /// <param name="image">The image.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="error">Why there is none: the rules of its text are not known (PV6206).</param>
    public static bool TryOf(
        KernelImage image, [NotNullWhen(true)] out TextKernel? kernel, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        kernel = TextRules.Of(image) is TextRules rules ? new TextKernel(image, rules) : null;
        error = kernel is not null ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.TextRulesUnknown, "what else than its paravirt sites the kernel rewrites is not known") with
        {
            Found = $"{image.Bitness} bits, {image.Era}",
            Expected = "a 64-bit kernel of 5.10 or later",
        };
        return kernel is not null;
    }

    /// <summary>A kernel with rules that are given.</summary>
    public static TextKernel Of(KernelImage image, TextRules rules) => new(image, rules);

    /// <summary>The address of a symbol; <see langword="null"/> where there is none.</summary>
    public VirtualAddress? Symbol(string name) =>
        Image.Symbols is not null && Image.Symbols.TryGetAddress(name, out VirtualAddress address) ? address : null;

    /// <summary>The numbers of the features that decide returns and retpolines.</summary>
    public MitigationFeatures Mitigations =>
        _mitigations ??= MitigationFeatures.Of(this, TryReadAlternatives(out AltInstrTable? table, out _) ? table : null);

    /// <summary>Whether the kernel can count calls: it has a table of them.</summary>
    public bool HasCallSites => !Table(TextTableKind.Calls).Bytes.IsEmpty;

    /// <summary>The nops a kernel may use: one kind where it is known, two where the processor chooses and is not known.</summary>
    public IReadOnlyList<NopStyle> NopChoices(BootState state) =>
        !Rules.RewritesJumpLabels ? [Rules.Alternatives.Nops(Elf.Bitness)]
        : state.Nops is NopStyle known ? [known] : [NopStyle.P6, NopStyle.K8];

    /// <summary>The table of alternatives; read once.</summary>
    /// <param name="table">The table; an empty one is none.</param>
    /// <param name="error">Why there is none.</param>
    public bool TryReadAlternatives([NotNullWhen(true)] out AltInstrTable? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (!_hasRead)
        {
            _alternatives = Image.Alternatives;
            _hasRead = true;
            if (_alternatives is null)
            {
                _ = AltInstrTable.TryRead(Elf, out _alternatives, out _alternativesError);
            }
        }

        table = _alternatives;
        error = _alternativesError;
        return table is not null;
    }

    /// <summary>A table; empty where the kernel does not have it.</summary>
    public TextTable Table(TextTableKind kind) => TextTable.Find(this, kind);

    /// <summary>Whether bytes belong to the kernel's text.</summary>
    public bool IsText(VirtualAddress address, int length) => Contains(address, length, isText: true);

    /// <summary>Whether bytes belong to the kernel's data, with contents in the file or without.</summary>
    public bool IsData(VirtualAddress address, int length) => Contains(address, length, isText: false);

    /// <summary>A word of the kernel's data as the file has it; 0 for data without contents in the file.</summary>
    public ulong FileWord(VirtualAddress address) =>
        Elf.TryGetBytes(address, sizeof(ulong), out Memory<byte> bytes) ? BinaryPrimitives.ReadUInt64LittleEndian(bytes.Span) : 0;

    private bool Contains(VirtualAddress address, int length, bool isText)
    {
        foreach ((ulong first, ulong last, bool isCode) in _allocated)
        {
            if (isCode == isText && address.Value >= first && address.Value <= last && last - address.Value >= (ulong)(length - 1))
            {
                return true;
            }
        }

        return false;
    }
}
