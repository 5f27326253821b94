using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Linux;

/// <summary>
/// A kernel's ELF file and the data needed to plan its paravirt sites: sites, layout, ops table, alternatives, era. Nothing is copied:
/// <see cref="Code"/> views the file's own bytes, so a plan applied to it changes the file in memory.
/// </summary>
public sealed class KernelImage
{
    private readonly KernelSites _sites;

    internal KernelImage(ElfImage elf, CodeImage code, KernelEra era, OpsLayout layout, KernelSites sites, SlotTargets targets)
    {
        Elf = elf;
        Code = code;
        Era = era;
        Layout = layout;
        _sites = sites;
        Targets = targets;
        Native = KernelBackends.CreateNative(era, layout, elf.Bitness, targets, new NativeOptions());
    }

    /// <summary>32 or 64.</summary>
    public int Bitness => Elf.Bitness;

    /// <summary>Warnings about a file that can be planned.</summary>
    public IReadOnlyList<PatchDiagnostic> Warnings => Elf.Warnings;

    internal ElfImage Elf { get; }

    /// <summary>The sections of code, at their link addresses.</summary>
    public CodeImage Code { get; }

    /// <summary>The kernel era.</summary>
    public KernelEra Era { get; }

    /// <summary>The layout: the order of the slots. Lock slots that are a table of their own (after 6.18) come last.</summary>
    public OpsLayout Layout { get; }

    /// <summary>The sites, in order of address.</summary>
    public SiteTable Sites => _sites.Sites;

    /// <summary>The records of its <c>.parainstructions</c>, as stored; none where its sites are alternatives.</summary>
    public IReadOnlyList<ParaInstruction> Records => _sites.Records;

    /// <summary>
    /// Run address of each slot's word (<c>pv_ops</c>, <c>pv_ops_lock</c>), by slot index; 0 where no site goes through it and no symbol
    /// tells.
    /// </summary>
    public IReadOnlyList<VirtualAddress> SlotWords => _sites.SlotWords;

    /// <summary>
    /// Run address of the ops table (<c>pv_ops</c>); of the first one where there are several, 0 where no site goes through it.
    /// </summary>
    public VirtualAddress OpsTable => SlotWords[0];

    /// <summary>The functions in the ops table on disk, and all functions by name.</summary>
    public SlotTargets Targets { get; }

    /// <summary>The functions in the ops table on disk: those of a native boot.</summary>
    public Backend Native { get; }

    /// <summary>
    /// Names of other known orders that the image proves as well as <see cref="Layout"/>, and that are the same for all its sites; none
    /// where it says its order itself.
    /// </summary>
    internal IReadOnlyList<string> LayoutsAlike { get; init; } = [];

    internal AltInstrTable? Alternatives { get; init; }

    /// <summary>The symbols: those given, the image's symbol table, or its kallsyms; <see langword="null"/> where it has none.</summary>
    public KernelSymbols? Symbols { get; internal init; }

    /// <summary>The function called where an operation is missing, in eras that call one and where it is known.</summary>
    public VirtualAddress? BugTarget =>
        _sites.BugTarget ?? (Era.BugFunction is string name ? Targets.Find(name) : null);

    /// <summary>Names of the backends that the kernel can be planned for: native, and those whose functions the kernel has.</summary>
    public IReadOnlyList<string> BackendNames => KernelBackends.NamesFor(this);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux on disk.</summary>
    /// <param name="path">The file.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site
    /// table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        string path,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(path, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken)
            && TryOpen(loaded, path, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux on disk.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">
    /// The file is no kernel that can be planned; the codes are those of
    /// <see cref="TryOpen(string, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.
    /// </exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(string path, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(path, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken)
            ? image : throw new PatchException(error);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in a stream.</summary>
    /// <param name="stream">The stream, read from its position to its end; not closed.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site
    /// table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        Stream stream,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(stream, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken)
            && TryOpen(loaded, null, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in a stream.</summary>
    /// <param name="stream">The stream, read from its position to its end; not closed.</param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">
    /// The file is no kernel that can be planned; the codes are those of
    /// <see cref="TryOpen(Stream, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.
    /// </exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(Stream stream, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(stream, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken)
            ? image : throw new PatchException(error);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is not copied: a plan applied to <see cref="Code"/> changes it.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site
    /// table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        Memory<byte> file,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(file, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken)
            && TryOpen(loaded, null, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is not copied: a plan applied to <see cref="Code"/> changes it.</param>
    /// <param name="options">Known facts and limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">
    /// The file is no kernel that can be planned; the codes are those of
    /// <see cref="TryOpen(Memory{byte}, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.
    /// </exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(Memory<byte> file, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(file, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken)
            ? image : throw new PatchException(error);

    /// <summary>
    /// Writes the image as it is in memory now: the bytes that the ELF headers account for, without the KASLR relocations behind a kernel
    /// unpacked from a bzImage. Atomic replacement of a file is left to the caller; <c>pvpatch patch</c> writes a temporary file, flushes
    /// it to the disk and renames it.
    /// </summary>
    /// <param name="destination">The stream, written to from its position; neither flushed nor closed.</param>
    /// <exception cref="IOException">The stream cannot be written to.</exception>
    public void Save(Stream destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        destination.Write(Elf.File.Span[..(int)Elf.EndOfFileContent]);
    }

    /// <summary>Opens a kernel's ELF file.</summary>
    /// <param name="elf">The file.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: an unlinked file (PV6011), no sites (PV6101), an unknown layout (PV6103), no ops table (PV6104), a bad site table
    /// (PV1xxx).
    /// </param>
    /// <returns>Whether the image can be planned.</returns>
    internal static bool TryOpen(
        ElfImage elf, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error) =>
        TryOpen(elf, null, out image, out error);

    /// <summary>Opens a kernel's ELF file.</summary>
    /// <param name="elf">The file.</param>
    /// <param name="options">Facts that the caller knows; <see langword="null"/> for none.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: an unlinked file (PV6011), no sites (PV6101), an unknown layout (PV6103), no ops table (PV6104), a bad site table
    /// (PV1xxx).
    /// </param>
    /// <returns>Whether the image can be planned.</returns>
    internal static bool TryOpen(
        ElfImage elf,
        KernelOptions? options,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error) =>
        KernelImageReader.TryRead(elf, options, out image, out error);

    private static bool TryOpen(
        LoadedKernelFile file, string? path, KernelOptions? options, [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        image = null;
        if (ElfImage.TryRead(file.Image, out ElfImage? elf, out error) && TryOpen(elf, options, out image, out error))
        {
            return true;
        }

        error = error with { Source = path };
        return false;
    }
}
