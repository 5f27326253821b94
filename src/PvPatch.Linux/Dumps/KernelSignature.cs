using System.Buffers.Binary;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Bytes by which a kernel is recognised in memory: its banner, pieces of constant data, and pieces of code for memory that holds nothing
/// else.
/// </summary>
/// <remarks>
/// A piece never holds what KASLR changes: no word in it, at whatever place, may be an address of the image. Data stays as it is but for
/// what is read-only only after the start, so most of it must match. Of code a fair part changes (function entries, returns, alternatives,
/// all at a few bytes each), so a quarter of small pieces is enough: by chance not even one matches.
/// </remarks>
internal sealed class KernelSignature
{
    /// <summary>Bytes of a piece of data; the longest there are. Pieces start at multiples of their length, so none lies in two pages.</summary>
    public const int DataLength = 64;

    private const int CodeLength = 32;
    private const int DataPerSection = 12;
    private const int CodePerSection = 48;

    // How many places are looked at for each piece: bounds the work on sections full of zeros.
    private const int PlacesPerPiece = 512;

    private readonly ElfImage _image;
    private readonly ulong _low;
    private readonly ulong _high;

    private KernelSignature(ElfImage image)
    {
        _image = image;
        InitAreas areas = InitAreas.Of(image);
        List<ElfSection> sections = [.. areas.Kept(image)];
        _low = sections.Count == 0 ? 0 : sections.Min(static s => s.Address.Value);
        _high = sections.Count == 0 ? 0 : sections.Max(static s => s.Address.Value + Math.Max(s.Size, 1) - 1);
        foreach (ElfSection section in sections.Where(static s => s.HasFileContent && s.Size > 0))
        {
            if (section.IsExecutable)
            {
                Add(section, Code, CodeLength, CodePerSection, 12);
            }
            else if (IsConstant(section))
            {
                FindBanner(section);
                Add(section, Data, DataLength, DataPerSection, 20);
            }
        }
    }

    /// <summary>The kernel's banner with version, builder and date, up to its end; it tells builds apart.</summary>
    public SignaturePiece? Banner { get; private set; }

    /// <summary>Pieces of constant data.</summary>
    public List<SignaturePiece> Data { get; } = [];

    /// <summary>Pieces of code.</summary>
    public List<SignaturePiece> Code { get; } = [];

    /// <summary>The lowest and highest addresses of the image.</summary>
    public (ulong Low, ulong High) Range => (_low, _high);

    public string BannerText => Banner is { } banner ? System.Text.Encoding.UTF8.GetString(banner.Bytes.Span).TrimEnd() : "no banner";

    public static KernelSignature Of(ElfImage image) => new(image);

    // .rodata is marked writable in kernels that have variables in it which are read-only after the start.
    private static bool IsConstant(ElfSection section) =>
        (section.Flags & ElfSectionAttributes.Write) == 0 || section.Name.StartsWith(".rodata", StringComparison.Ordinal);

    private void FindBanner(ElfSection section)
    {
        ReadOnlyMemory<byte> content = _image.GetBytes(section);
        ReadOnlySpan<byte> wanted = "Linux version "u8;
        for (int at = 0; Banner is null;)
        {
            int found = content.Span[at..].IndexOf(wanted);
            if (found < 0)
            {
                return;
            }

            at += found;
            ReadOnlySpan<byte> text = content.Span[at..Math.Min(content.Length, at + 512)];
            int end = text.IndexOf((byte)'\n');
            if (end > wanted.Length && char.IsAsciiDigit((char)text[wanted.Length]))
            {
                Banner = new SignaturePiece(section.Address.Value + (ulong)at, content.Slice(at, end), section.Name);
            }

            at += wanted.Length;
        }
    }

    // Spreads pieces evenly over a section.
    private void Add(ElfSection section, List<SignaturePiece> pieces, int length, int wanted, int minDistinct)
    {
        ReadOnlyMemory<byte> content = _image.GetBytes(section);
        int skip = (int)((ulong)-(long)section.Address.Value & (ulong)(length - 1));
        int places = (content.Length - skip) / length;
        int step = Math.Max(1, places / wanted);
        for (int first = 0; first < places; first += step)
        {
            int last = Math.Min(Math.Min(first + step, places), first + PlacesPerPiece);
            for (int place = first; place < last; place++)
            {
                int at = skip + place * length;
                if (IsFit(content.Span, at, length, minDistinct))
                {
                    pieces.Add(new SignaturePiece(section.Address.Value + (ulong)at, content.Slice(at, length), section.Name));
                    break;
                }
            }
        }
    }

    private bool IsFit(ReadOnlySpan<byte> content, int at, int length, int minDistinct)
    {
        Span<bool> seen = stackalloc bool[256];
        seen.Clear();
        int distinct = 0;
        foreach (byte value in content.Slice(at, length))
        {
            distinct += seen[value] ? 0 : 1;
            seen[value] = true;
        }

        if (distinct < minDistinct)
        {
            return false;
        }

        // Words that begin before the piece or end behind it count too. Low halves are enough: KASLR changes addresses of 4 bytes as well.
        int end = Math.Min(at + length + 3, content.Length);
        for (int i = Math.Max(0, at - 3); i + 4 <= end; i++)
        {
            uint word = BinaryPrimitives.ReadUInt32LittleEndian(content[i..]);
            if (word >= (uint)_low && word <= (uint)_high)
            {
                return false;
            }
        }

        return true;
    }
}
