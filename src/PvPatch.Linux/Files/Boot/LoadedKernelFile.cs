namespace PvPatch.Linux.Files;

/// <summary>Kind of a kernel file on disk.</summary>
internal enum KernelFileKind
{
    /// <summary>An ELF file as it is.</summary>
    Elf,

    /// <summary>A bzImage with a compressed ELF file in it.</summary>
    BzImage,

    /// <summary>A compressed ELF file, such as a <c>vmlinux.xz</c>.</summary>
    CompressedElf,
}

/// <summary>A kernel file, unpacked.</summary>
internal sealed class LoadedKernelFile
{
    internal LoadedKernelFile(KernelFileKind kind, Memory<byte> image, long fileSize)
    {
        Kind = kind;
        Image = image;
        FileSize = fileSize;
    }

    /// <summary>The kind of the file.</summary>
    public KernelFileKind Kind { get; }

    /// <summary>
    /// The unpacked ELF file. What a bzImage holds is followed by relocations: the ELF file itself ends at
    /// <see cref="ElfImage.EndOfFileContent"/>.
    /// </summary>
    public Memory<byte> Image { get; }

    /// <summary>The size of the file in bytes, as it was given.</summary>
    public long FileSize { get; }

    /// <summary>The compression.</summary>
    public PayloadCompression Compression { get; internal init; }

    /// <summary>The boot header, where the file was a bzImage.</summary>
    public BzImage? BootHeader { get; internal init; }
}
