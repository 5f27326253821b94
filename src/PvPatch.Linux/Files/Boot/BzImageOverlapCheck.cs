using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Refuses bzImages in which a byte is more than one thing, or which claim bytes they do not have: what is unpacked and planned would not
/// be what a boot loader or firmware starts.
/// </summary>
/// <remarks>
/// <code>
/// 0          setup end                      kernel end       signature
/// | setup    | code | compressed | code |      | (padding)     |          |
/// | kernel beyond the end of the file                              refused
/// | compressed kernel not wholly inside the kernel                 refused
/// | memory the kernel asks for (init_size) smaller than itself     refused: it would unpack itself over what lies behind
/// | kernel_info or an EFI entry in the compressed kernel           refused
/// | EFI headers over the boot header                               refused (EfiStub)
/// | two EFI sections over the same bytes or addresses              refused
/// | an EFI section beyond the file, or one that cuts the           refused
/// |   compressed kernel
/// | a signature over the kernel or an EFI section                  refused
/// | an EFI section over the headers (as in Linux 3.3)              allowed
/// | bytes behind all of it                                         allowed: no loader reads them
/// </code>
/// </remarks>
internal static class BzImageOverlapCheck
{
    /// <summary>Advice for a file no build makes.</summary>
    public const string Forged = "No build lays out a bzImage so; its headers are damaged or forged";

    private const int KernelSizeAt = 0x1f4; // syssize, in units of 16 bytes
    private const int HeaderLengthAt = 0x201; // the displacement of the short jump over the header
    private const int HeaderBase = 0x202;
    private const int LoadFlagsAt = 0x236;
    private const int PayloadOffsetAt = 0x248;
    private const int MemorySizeAt = 0x260;
    private const int HandoverAt = 0x264;
    private const int KernelInfoAt = 0x268;
    private const int KernelInfoMinSize = 12;
    private const int EntryDistance64 = 0x200; // the 64-bit entry of the EFI hand-over behind the 32-bit one
    private const int Handover32 = 1 << 2;
    private const int Handover64 = 1 << 3;

    private readonly record struct Part(ulong Start, ulong Size, string Name, long SaidAt)
    {
        public ulong End => Start + Size;

        public bool Contains(Part other) => other.Start >= Start && other.End <= End;

        public bool Shares(Part other) => Start < other.End && other.Start < End;
    }

    /// <summary>Checks where the parts of a bzImage lie.</summary>
    /// <param name="file">The whole file.</param>
    /// <param name="boot">Its boot header; the compressed kernel lies inside the file.</param>
    /// <param name="error">What is wrong: code PV6041.</param>
    /// <returns>Whether all parts are inside the file and apart from each other.</returns>
    public static bool TryCheck(ReadOnlySpan<byte> file, BzImage boot, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        var payload = new Part((ulong)boot.PayloadOffset, (ulong)boot.PayloadLength, "the compressed kernel", PayloadOffsetAt);
        var kernel = new Part((ulong)boot.SetupLength, (ulong)Field(file, KernelSizeAt) * 16, "the kernel", KernelSizeAt);
        if (!EfiStub.TryRead(file, out EfiStub? stub, out error))
        {
            return false;
        }

        error = OfKernel(file, kernel, payload);
        error ??= stub is null ? null : OfSections(file, stub, payload) ?? OfSignature(file, stub, kernel);
        return error is null;
    }

    private static PatchDiagnostic? OfKernel(ReadOnlySpan<byte> file, Part kernel, Part payload)
    {
        // The size is rounded up to 16 bytes; the first builds did not fill the file up.
        if (kernel.End > (ulong)file.Length + 15)
        {
            return Outside(kernel, "the file", new Part(0, (ulong)file.Length, "", 0));
        }

        if (!kernel.Contains(payload))
        {
            return Outside(payload, "the kernel", kernel);
        }

        if (HasField(file, MemorySizeAt) && Field(file, MemorySizeAt) < kernel.Size)
        {
            return Error("The kernel asks for less memory than it has bytes", MemorySizeAt,
                $"{FileRange.Hex(Field(file, MemorySizeAt))} bytes", $"at least {FileRange.Hex(kernel.Size)} bytes");
        }

        if (HasField(file, KernelInfoAt) && Field(file, KernelInfoAt) is uint offset and not 0)
        {
            var info = new Part(kernel.Start + offset, KernelInfoMinSize, "the block kernel_info", KernelInfoAt);
            if (kernel.Contains(info) && info.End <= (ulong)file.Length)
            {
                info = info with { Size = Math.Max(KernelInfoMinSize, Field(file, (int)info.Start + 8)) };
            }

            if (!kernel.Contains(info))
            {
                return Outside(info, "the kernel", kernel);
            }

            if (info.Shares(payload))
            {
                return Shared(info, payload);
            }
        }

        return HasField(file, HandoverAt) ? OfEntries(file, kernel, payload) : null;
    }

    private static PatchDiagnostic? OfEntries(ReadOnlySpan<byte> file, Part kernel, Part payload)
    {
        int flags = BinaryPrimitives.ReadUInt16LittleEndian(file[LoadFlagsAt..]);
        foreach ((int flag, uint distance) in (ReadOnlySpan<(int, uint)>)[(Handover32, 0), (Handover64, EntryDistance64)])
        {
            var entry = new Part(kernel.Start + Field(file, HandoverAt) + distance, 1, "an entry for EFI", HandoverAt);
            if ((flags & flag) != 0 && !kernel.Contains(entry))
            {
                return Outside(entry, "the kernel", kernel);
            }

            if ((flags & flag) != 0 && entry.Shares(payload))
            {
                return Shared(entry, payload);
            }
        }

        return null;
    }

    private static PatchDiagnostic? OfSections(ReadOnlySpan<byte> file, EfiStub stub, Part payload)
    {
        // At most a dozen: their headers lie before the boot header.
        Part[] inFile = [.. stub.Sections.Where(static s => s.FileSize > 0).Select(BytesOf)];
        Part[] inMemory = [.. stub.Sections.Where(static s => s.AddressSize > 0).Select(AddressesOf)];
        var whole = new Part(0, (ulong)file.Length, "", 0);
        foreach (Part section in inFile)
        {
            if (!whole.Contains(section))
            {
                return Outside(section, "the file", whole);
            }

            if (section.Shares(payload) && !section.Contains(payload))
            {
                return Error($"{section.Name} has only a part of the compressed kernel", section.SaidAt, Describe(section),
                    $"all of {Describe(payload)}, or nothing of it");
            }
        }

        if (inFile.Length > 0 && !inFile.Any(s => s.Contains(payload)))
        {
            return Error(
                "No section of the EFI stub has the compressed kernel", PayloadOffsetAt, Describe(payload), "a section that has all of it");
        }

        return FirstShared(inFile, "bytes of the file") ?? FirstShared(inMemory, "addresses");
    }

    private static PatchDiagnostic? OfSignature(ReadOnlySpan<byte> file, EfiStub stub, Part kernel)
    {
        var signature = new Part(stub.SignatureOffset, stub.SignatureSize, "the signature", stub.SignatureAt);
        var whole = new Part(0, (ulong)file.Length, "", 0);
        if (signature.Size == 0)
        {
            return null;
        }

        if (!whole.Contains(signature))
        {
            return Outside(signature, "the file", whole);
        }

        Part toKernelEnd = kernel with { Start = 0, Size = kernel.End };
        foreach (Part part in stub.Sections.Where(static s => s.FileSize > 0).Select(BytesOf).Prepend(toKernelEnd))
        {
            if (signature.Shares(part))
            {
                return Shared(signature, part);
            }
        }

        return null;
    }

    private static Part BytesOf(EfiSection section) => new(section.FileOffset, section.FileSize, section.Name, section.HeaderAt);

    private static Part AddressesOf(EfiSection section) => new(section.Address, section.AddressSize, section.Name, section.HeaderAt);

    private static PatchDiagnostic? FirstShared(Part[] parts, string what)
    {
        Array.Sort(parts, static (a, b) => a.Start.CompareTo(b.Start));
        for (int i = 1; i < parts.Length; i++)
        {
            if (parts[i].Shares(parts[i - 1]))
            {
                return Shared(parts[i], parts[i - 1], what);
            }
        }

        return null;
    }

    // A field that the header is too short for is one of a later protocol.
    private static bool HasField(ReadOnlySpan<byte> file, int at) => HeaderBase + file[HeaderLengthAt] >= at + 4;

    private static uint Field(ReadOnlySpan<byte> file, int at) => BinaryPrimitives.ReadUInt32LittleEndian(file[at..]);

    private static string Describe(Part part) => FileRange.Describe(part.Start, part.Size);

    private static PatchDiagnostic Outside(Part part, string holder, Part within) => Error(
        $"{part.Name} lies outside {holder}", part.SaidAt, Describe(part), $"a range within {Describe(within)}");

    private static PatchDiagnostic Shared(Part part, Part other, string what = "bytes of the file") => Error(
        $"{part.Name} and {other.Name} share {what}", part.SaidAt, $"{Describe(part)} and {Describe(other)}",
        "parts apart from each other");

    private static PatchDiagnostic Error(string message, long offset, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.BzImageOverlap, char.ToUpperInvariant(message[0]) + message[1..]) with
        {
            FileOffset = offset,
            Found = found,
            Expected = expected,
            Help = Forged,
        };
}
