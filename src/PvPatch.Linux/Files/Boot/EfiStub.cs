using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>A section of an EFI stub.</summary>
/// <param name="Name">The name, without the zeros that fill it up.</param>
/// <param name="HeaderAt">The file offset of its section header.</param>
/// <param name="Address">The address relative to the image's base.</param>
/// <param name="AddressSize">The size in memory in bytes.</param>
/// <param name="FileOffset">The offset of its bytes in the file.</param>
/// <param name="FileSize">The number of its bytes in the file; 0 for a section that is only cleared memory.</param>
internal readonly record struct EfiSection(string Name, int HeaderAt, uint Address, uint AddressSize, uint FileOffset, uint FileSize);

/// <summary>
/// The PE headers of a bzImage that firmware can start by itself (CONFIG_EFI_STUB): its sections and its signature.
/// </summary>
/// <remarks>
/// <code>
/// 0x000  "MZ"                         0x03c  offset of the PE header
/// PE     "PE", 0, 0                   +0x06  number of sections      +0x14  size of the optional header
/// +0x18  optional header: 0x10b (32 bits) or 0x20b (64 bits), at its end directories of 8 bytes; the fifth is the signature's
/// then   section headers of 40 bytes, all of it before the boot header at 0x1f1
/// </code>
/// System.Reflection.PortableExecutable can't be used: it reads 16 directories where the kernel's headers have six.
/// </remarks>
internal sealed class EfiStub
{
    /// <summary>The offset of the field that says where the PE header is.</summary>
    public const int PeOffsetAt = 0x3c;

    private const int BootHeaderAt = 0x1f1;
    private const int FileHeaderSize = 24;
    private const int SectionHeaderSize = 40;
    private const int DirectorySize = 8;
    private const int SignatureDirectory = 4;

    private EfiStub(EfiSection[] sections)
    {
        Sections = sections;
    }

    /// <summary>The sections, in the order of their headers.</summary>
    public IReadOnlyList<EfiSection> Sections { get; }

    /// <summary>The file offset of the directory entry of the signature; 0 without one.</summary>
    public int SignatureAt { get; private init; }

    /// <summary>The file offset of the signature.</summary>
    public uint SignatureOffset { get; private init; }

    /// <summary>The size of the signature in bytes; 0 without one.</summary>
    public uint SignatureSize { get; private init; }

    /// <summary>Reads the PE headers.</summary>
    /// <param name="file">The whole bzImage.</param>
    /// <param name="stub">The headers; <see langword="null"/> for a bzImage without an EFI stub.</param>
    /// <param name="error">What is wrong: code PV6041.</param>
    /// <returns>Whether there are none, or all of them lie before the boot header.</returns>
    public static bool TryRead(ReadOnlySpan<byte> file, out EfiStub? stub, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        stub = null;
        error = null;
        uint at = file.StartsWith("MZ"u8) ? Read32(file, PeOffsetAt) : 0;
        if (at == 0 || !FileRange.Fits(at, 4, file.Length) || !file[(int)at..].StartsWith("PE\0\0"u8))
        {
            return true;
        }

        int pe = (int)at;
        ulong end = at + (ulong)FileHeaderSize;
        int optional = 0;
        int sections = 0;
        if (end <= BootHeaderAt)
        {
            optional = BinaryPrimitives.ReadUInt16LittleEndian(file[(pe + 0x14)..]);
            sections = BinaryPrimitives.ReadUInt16LittleEndian(file[(pe + 6)..]);
            end += (ulong)optional + ((ulong)sections * SectionHeaderSize);
        }

        if (end > BootHeaderAt)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.BzImageOverlap, "The headers of the EFI stub share bytes with the boot header") with
            {
                FileOffset = PeOffsetAt,
                Found = FileRange.Describe(at, end - at),
                Expected = $"headers that end at {FileRange.Hex(BootHeaderAt)} or before",
                Help = BzImageOverlapCheck.Forged,
            };
            return false;
        }

        ReadOnlySpan<byte> directories = Directories(file.Slice(pe + FileHeaderSize, optional));
        int table = pe + FileHeaderSize + optional;
        bool isSigned = directories.Length >= (SignatureDirectory + 1) * DirectorySize;
        stub = new EfiStub([.. ReadSections(file.Slice(table, sections * SectionHeaderSize), table)])
        {
            SignatureAt = isSigned ? table - directories.Length + (SignatureDirectory * DirectorySize) : 0,
            SignatureOffset = isSigned ? Read32(directories, SignatureDirectory * DirectorySize) : 0,
            SignatureSize = isSigned ? Read32(directories, (SignatureDirectory * DirectorySize) + 4) : 0,
        };
        return true;
    }

    /// <summary>The directories that an optional header has: its last bytes.</summary>
    private static ReadOnlySpan<byte> Directories(ReadOnlySpan<byte> optional)
    {
        int fixedSize = optional switch
        {
            [0x0b, 0x01, ..] => 96,
            [0x0b, 0x02, ..] => 112,
            _ => int.MaxValue,
        };
        return optional.Length < fixedSize ? [] : optional[fixedSize..];
    }

    private static List<EfiSection> ReadSections(ReadOnlySpan<byte> headers, int at)
    {
        var sections = new List<EfiSection>(headers.Length / SectionHeaderSize);
        for (; !headers.IsEmpty; headers = headers[SectionHeaderSize..], at += SectionHeaderSize)
        {
            string name = NameOf(headers[..8]);
            uint fileSize = Read32(headers, 16);
            uint size = Read32(headers, 8);
            sections.Add(new EfiSection(name, at, Read32(headers, 12), size == 0 ? fileSize : size, Read32(headers, 20), fileSize));
        }

        return sections;
    }

    /// <summary>A name as it can be printed, whatever its bytes are.</summary>
    private static string NameOf(ReadOnlySpan<byte> bytes) => string.Concat(
        System.Text.Encoding.Latin1.GetString(bytes.TrimEnd((byte)0)).Select(static c => c is > ' ' and <= '~' ? c : '?'));

    private static uint Read32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);
}
