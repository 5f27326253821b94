using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>Reads kernel files: takes an ELF file, a bzImage or a compressed ELF file and gives the ELF file.</summary>
internal static class KernelFile
{
    /// <summary>Reads and unpacks a kernel file from disk.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">The limits; <see langword="null"/> for the defaults.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="error">What is wrong, with <paramref name="path"/> as its source: codes PV6001 to PV6003 and PV6030 to PV6041.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the file is a kernel that was unpacked. The ELF file in it is not checked further than its magic number.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryLoad(
        string path,
        UnpackLimits? options,
        [NotNullWhen(true)] out LoadedKernelFile? kernel,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        kernel = null;
        if (!KernelFileReader.TryReadFile(path, options ?? UnpackLimits.Default, out Memory<byte> file, out error, cancellationToken)
            || !TryLoad(file, options, out kernel, out error, cancellationToken))
        {
            error = error with { Source = path };
            return false;
        }

        return true;
    }

    /// <summary>Reads and unpacks a kernel file from a stream, from where the stream stands to its end.</summary>
    /// <param name="stream">The stream; it is not closed.</param>
    /// <param name="options">The limits; <see langword="null"/> for the defaults.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="error">What is wrong: codes PV6001 to PV6003 and PV6030 to PV6041.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the stream holds a kernel that was unpacked.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryLoad(
        Stream stream,
        UnpackLimits? options,
        [NotNullWhen(true)] out LoadedKernelFile? kernel,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(stream);
        kernel = null;
        return KernelFileReader.TryReadStream(stream, options ?? UnpackLimits.Default, out Memory<byte> file, out error, cancellationToken)
            && TryLoad(file, options, out kernel, out error, cancellationToken);
    }

    /// <summary>Unpacks a kernel file that is in memory.</summary>
    /// <param name="file">The whole file. An ELF file is handed back as it is, not copied.</param>
    /// <param name="options">The limits; <see langword="null"/> for the defaults.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="error">What is wrong: codes PV6001 and PV6030 to PV6041.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the bytes are a kernel that was unpacked.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryLoad(
        Memory<byte> file,
        UnpackLimits? options,
        [NotNullWhen(true)] out LoadedKernelFile? kernel,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken = default)
    {
        options ??= UnpackLimits.Default;
        if (!TryRecognize(file.Span, out KernelFileKind kind, out error))
        {
            kernel = null;
            return false;
        }

        switch (kind)
        {
            case KernelFileKind.BzImage:
                return TryLoadBzImage(file, options, out kernel, out error, cancellationToken);
            case KernelFileKind.CompressedElf:
                return TryUnpack(
                    kind, file, file, PayloadDecompressor.Detect(file.Span), null, null, options, out kernel, out error, cancellationToken);
            default:
                kernel = new LoadedKernelFile(kind, file, file.Length);
                return true;
        }
    }

    /// <summary>Recognises a file's kind by its first bytes.</summary>
    internal static bool TryRecognize(ReadOnlySpan<byte> start, out KernelFileKind kind, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        kind = KernelFileKind.Elf;
        error = null;
        if (ElfImage.HasMagic(start))
        {
            return true;
        }

        if (BzImage.HasMagic(start))
        {
            kind = KernelFileKind.BzImage;
            return true;
        }

        if (PayloadDecompressor.Detect(start) != PayloadCompression.None)
        {
            kind = KernelFileKind.CompressedElf;
            return true;
        }

        error = NotAKernel(start);
        return false;
    }

    private static PatchDiagnostic NotAKernel(ReadOnlySpan<byte> start)
    {
        (string found, string? help) = start switch
        {
            [(byte)'M', (byte)'Z', ..] => ("a program for EFI or Windows without a Linux boot header (MZ)",
                "A hypervisor's .efi and boot loaders are no kernels: give the vmlinuz that they start. Of a unified kernel image take the "
                + "section .linux: objcopy -O binary --only-section=.linux IMAGE vmlinuz"),
            _ => (FileRange.FirstBytes(start), null),
        };
        return PatchDiagnostic.Error(KernelDiagnosticCodes.NotAKernel, "The file is not a kernel") with
        {
            FileOffset = 0,
            Found = found,
            Expected = "an ELF file, a bzImage or a compressed ELF file",
            Help = help ?? "Give the vmlinux or vmlinuz of an x86 kernel",
        };
    }

    private static bool TryLoadBzImage(
        Memory<byte> file, UnpackLimits options, [NotNullWhen(true)] out LoadedKernelFile? kernel,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        kernel = null;
        return BzImage.TryRead(file.Span, out BzImage? boot, out error)
            && KernelPayload.TryRead(boot.GetPayload(file), boot.PayloadOffset, out KernelPayload? payload, out error)
            && TryUnpack(KernelFileKind.BzImage, file, payload.Stream, payload.Compression, payload.UnpackedSize, boot, options, out kernel,
                out error, cancellationToken);
    }

    private static bool TryUnpack(
        KernelFileKind kind,
        Memory<byte> file,
        ReadOnlyMemory<byte> stream,
        PayloadCompression compression,
        long? announcedSize,
        BzImage? boot,
        UnpackLimits options,
        [NotNullWhen(true)] out LoadedKernelFile? kernel,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken)
    {
        kernel = null;
        long fileOffset = boot?.PayloadOffset ?? 0;
        if (!PayloadDecompressor.TryDecompress(
            stream, compression, announcedSize, options, out Memory<byte> image, out error, cancellationToken))
        {
            error = error with { FileOffset = fileOffset };
            return false;
        }

        if (!ElfImage.HasMagic(image.Span))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.PayloadNotElf, $"What was unpacked from the {compression} data is not an ELF file") with
            {
                FileOffset = fileOffset,
                Found = FileRange.FirstBytes(image.Span),
                Expected = "7f 45 4c 46",
                Help = "Give the vmlinux or vmlinuz of an x86 kernel",
            };
            return false;
        }

        kernel = new LoadedKernelFile(kind, image, file.Length) { Compression = compression, BootHeader = boot };
        return true;
    }
}
