using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// The boot header of a bzImage (the <c>vmlinuz</c> of x86), as far as it says where the compressed kernel is. Offsets are
/// those of the x86 boot protocol (Documentation/arch/x86/boot.rst of the kernel); protocol 2.08 or later is needed.
/// </summary>
internal sealed class BzImage
{
    private const int SetupSectorsAt = 0x1f1;
    private const int HeaderLengthAt = 0x201;
    private const int MagicAt = 0x202;
    private const int ProtocolAt = 0x206;
    private const int KernelVersionAt = 0x20e;
    private const int PayloadOffsetAt = 0x248;
    private const int PayloadLengthAt = 0x24c;
    private const int HeaderEnd = 0x250;
    private const int SectorSize = 512;
    private const int FirstProtocolWithPayload = 0x208;
    private const int MaxVersionLength = 256;

    private BzImage(ReadOnlySpan<byte> file)
    {
        // 0 stands for 4: the boot loaders of old wrote nothing there.
        SetupSectors = file[SetupSectorsAt] == 0 ? 4 : file[SetupSectorsAt];
        ProtocolVersion = BinaryPrimitives.ReadUInt16LittleEndian(file[ProtocolAt..]);
        KernelVersion = ReadVersion(file, SetupSectors);
        PayloadOffset = SetupLength + (long)BinaryPrimitives.ReadUInt32LittleEndian(file[PayloadOffsetAt..]);
        PayloadLength = BinaryPrimitives.ReadUInt32LittleEndian(file[PayloadLengthAt..]);
    }

    /// <summary>The number of 512-byte sectors of real-mode code behind the first sector.</summary>
    public int SetupSectors { get; }

    /// <summary>The length of the boot sector and the setup code in bytes: where the kernel's protected-mode code starts.</summary>
    public int SetupLength => (SetupSectors + 1) * SectorSize;

    /// <summary>The version of the boot protocol: 0x20f is 2.15.</summary>
    public int ProtocolVersion { get; }

    /// <summary>
    /// The version text of the kernel, for example <c>6.1.0-18-amd64 (builder@host) #1 SMP ...</c>; empty where it has none.
    /// </summary>
    public string KernelVersion { get; }

    /// <summary>Where the compressed kernel starts, in bytes from the start of the file.</summary>
    public long PayloadOffset { get; }

    /// <summary>The length of the compressed kernel in bytes, what the build appends to it included.</summary>
    public long PayloadLength { get; }

    /// <summary>Whether bytes hold the mark of a Linux boot header at its place.</summary>
    /// <param name="file">The start of a file.</param>
    /// <returns>Whether they do; the header may still be damaged.</returns>
    public static bool HasMagic(ReadOnlySpan<byte> file) => file.Length >= MagicAt + 4 && file[MagicAt..].StartsWith("HdrS"u8);

    /// <summary>Reads the boot header.</summary>
    /// <param name="file">The whole file; it is not kept.</param>
    /// <param name="image">The header.</param>
    /// <param name="error">What is wrong: codes PV6030 to PV6032 and PV6041.</param>
    /// <returns>Whether the file is a bzImage whose parts lie inside of it and apart from each other.</returns>
    public static bool TryRead(
        ReadOnlySpan<byte> file, [NotNullWhen(true)] out BzImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        image = null;
        error = null;
        if (file.Length < HeaderEnd)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.BzImageTruncated, "The file ends inside the boot header") with
            {
                FileOffset = file.Length,
                Found = $"{file.Length} bytes",
                Expected = $"at least {HeaderEnd} bytes",
                Help = "The file is cut short; copy or download it again",
            };
            return false;
        }

        if (!HasMagic(file))
        {
            error = BadHeader(
                "The file has no Linux boot header", MagicAt, FileRange.FirstBytes(file.Slice(MagicAt, 4)), "48 64 72 53 (HdrS)");
            return false;
        }

        var read = new BzImage(file);
        if (read.ProtocolVersion < FirstProtocolWithPayload)
        {
            error = BadHeader("The boot protocol is too old to say where the compressed kernel is", ProtocolAt,
                FileRange.Hex((ulong)read.ProtocolVersion), "0x208 or later") with
            {
                Help = "Kernels before 2.6.26 do not say it; give the vmlinux of the build instead",
            };
            return false;
        }

        // The header is jumped over; it ends where the jump leads to.
        if (file[HeaderLengthAt] < HeaderEnd - MagicAt)
        {
            error = BadHeader("The boot header ends before it says where the compressed kernel is", HeaderLengthAt,
                FileRange.Hex(file[HeaderLengthAt]), $"{FileRange.Hex(HeaderEnd - MagicAt)} or more");
            return false;
        }

        if (read.PayloadLength == 0)
        {
            error = BadHeader("The boot header names no compressed kernel", PayloadLengthAt, "a length of 0", "where the compressed kernel is") with
            {
                Help = "Other programs begin with this header too, so that boot loaders start them: memtest86+ is one. Give the vmlinuz of a "
                    + "Linux kernel",
            };
            return false;
        }

        if (!FileRange.Fits((ulong)read.PayloadOffset, (ulong)read.PayloadLength, file.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.BzImagePayloadOutsideFile, "The compressed kernel lies outside the file") with
            {
                FileOffset = PayloadOffsetAt,
                Found = FileRange.Describe((ulong)read.PayloadOffset, (ulong)read.PayloadLength),
                Expected = $"a range within {FileRange.Hex((ulong)file.Length)} bytes",
                Help = "The file is cut short or its boot header is damaged; copy or download it again",
            };
            return false;
        }

        if (!BzImageOverlapCheck.TryCheck(file, read, out error))
        {
            return false;
        }

        image = read;
        return true;
    }

    /// <summary>The compressed kernel.</summary>
    /// <param name="file">The file the header was read from.</param>
    /// <returns>Its bytes, not copied.</returns>
    /// <exception cref="ArgumentException">The file is shorter than the one the header was read from.</exception>
    public ReadOnlyMemory<byte> GetPayload(ReadOnlyMemory<byte> file)
    {
        if (!FileRange.Fits((ulong)PayloadOffset, (ulong)PayloadLength, file.Length))
        {
            throw new ArgumentException("The file is shorter than the one the header was read from", nameof(file));
        }

        return file.Slice((int)PayloadOffset, (int)PayloadLength);
    }

    private static PatchDiagnostic BadHeader(string message, long offset, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.BzImageBadHeader, message) with
        {
            FileOffset = offset,
            Found = found,
            Expected = expected,
            Help = "Give a bzImage (vmlinuz) for x86 or an ELF file (vmlinux)",
        };

    private static string ReadVersion(ReadOnlySpan<byte> file, int setupSectors)
    {
        // The field points at a NUL-terminated text, counted from the second sector; it must lie in the real-mode code.
        int at = SectorSize + BinaryPrimitives.ReadUInt16LittleEndian(file[KernelVersionAt..]);
        int end = Math.Min(file.Length, (setupSectors + 1) * SectorSize);
        if (at == SectorSize || at >= end)
        {
            return "";
        }

        ReadOnlySpan<byte> text = file[at..Math.Min(end, at + MaxVersionLength)];
        int length = text.IndexOf((byte)0);
        return length <= 0 ? "" : System.Text.Encoding.UTF8.GetString(text[..length]);
    }
}
