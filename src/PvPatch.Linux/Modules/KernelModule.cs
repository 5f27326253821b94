using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Modules;

/// <summary>A kernel module file (<c>.ko</c>, compressed or not): relocatable, without addresses. Read only.</summary>
public sealed class KernelModule
{
    private const string InfoSection = ".modinfo";

    private KernelModule(ElfImage elf)
    {
        Elf = elf;
        Name = FindInfo("name="u8);
        VersionMagic = FindInfo("vermagic="u8);
    }

    /// <summary>The relocatable ELF file.</summary>
    internal ElfImage Elf { get; }

    /// <summary>The module's name from its <c>.modinfo</c> (since 4.13); <see langword="null"/> without one.</summary>
    public string? Name { get; }

    /// <summary>
    /// The kernel release and options the module was built for, for example <c>6.1.0-18-amd64 SMP preempt mod_unload modversions</c>.
    /// </summary>
    public string? VersionMagic { get; }

    /// <summary>The first word of <see cref="VersionMagic"/>: the release of the kernel it was built for.</summary>
    public string? Release => VersionMagic?.Split(' ')[0];

    /// <summary>Reads and unpacks a module.</summary>
    /// <param name="path">
    /// A <c>.ko</c>, <c>.ko.gz</c>, <c>.ko.xz</c> or <c>.ko.zst</c>; the format is recognised by content, not by name.
    /// </param>
    /// <param name="module">The module.</param>
    /// <param name="error">What is wrong: PV6140 no module, PV60xx for the file and its packing.</param>
    /// <param name="options">Limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the file is a module.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        string path,
        [NotNullWhen(true)] out KernelModule? module,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        module = null;
        if (KernelFile.TryLoad(path, options?.Unpacking, out LoadedKernelFile? file, out error, cancellationToken)
            && TryOpen(file, out module, out error))
        {
            return true;
        }

        error = NameKind(error) with { Source = path };
        return false;
    }

    /// <summary>Unpacks a module that is in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is kept, not copied, and must not change while the module is used.</param>
    /// <param name="module">The module.</param>
    /// <param name="error">What is wrong: PV6140 no module, PV60xx for the file and its packing.</param>
    /// <param name="options">Limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the bytes are a module.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        Memory<byte> file,
        [NotNullWhen(true)] out KernelModule? module,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        module = null;
        if (KernelFile.TryLoad(file, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken)
            && TryOpen(loaded, out module, out error))
        {
            return true;
        }

        error = NameKind(error);
        return false;
    }

    /// <summary>Reads and unpacks a module.</summary>
    /// <param name="path">A <c>.ko</c>, <c>.ko.gz</c>, <c>.ko.xz</c> or <c>.ko.zst</c>.</param>
    /// <param name="options">Limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The module.</returns>
    /// <exception cref="PatchException">The file is no module, or cannot be read.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelModule Open(string path, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(path, out KernelModule? module, out PatchDiagnostic? error, options, cancellationToken)
            ? module : throw new PatchException(error);

    /// <summary>Unpacks a module that is in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is kept, not copied, and must not change while the module is used.</param>
    /// <param name="options">Limits; <see langword="null"/> for the defaults.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The module.</returns>
    /// <exception cref="PatchException">The bytes are no module.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelModule Open(Memory<byte> file, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(file, out KernelModule? module, out PatchDiagnostic? error, options, cancellationToken)
            ? module : throw new PatchException(error);

    /// <summary>Places the module into a kernel; see <see cref="TryPlace"/>.</summary>
    /// <param name="kernel">The kernel, at its link addresses.</param>
    /// <param name="placement">Addresses of the module's sections.</param>
    /// <returns>The placed module.</returns>
    /// <exception cref="PatchException">The module cannot be planned in this kernel.</exception>
    public PlacedModule Place(KernelImage kernel, ModulePlacement placement) =>
        TryPlace(kernel, placement, out PlacedModule? placed, out PatchDiagnostic? error) ? placed : throw new PatchException(error);

    /// <summary>Places the module into a kernel: gives its sections addresses, does its relocations and reads its sites.</summary>
    /// <param name="kernel">The kernel, at its link addresses.</param>
    /// <param name="placement">Addresses of the module's sections.</param>
    /// <param name="placed">The placed module.</param>
    /// <param name="error">
    /// What is wrong: PV6018 and PV6141 to PV6146; PV1xxx for its site table; PV6070, PV6071, PV6104 and PV6105 for its alternatives.
    /// </param>
    /// <returns>Whether the module can be planned.</returns>
    public bool TryPlace(
        KernelImage kernel, ModulePlacement placement, [NotNullWhen(true)] out PlacedModule? placed,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(kernel);
        ArgumentNullException.ThrowIfNull(placement);
        bool done = PlacedModule.TryMake(this, kernel, placement, out placed, out error);
        error = error is null ? null : error with { Source = error.Source ?? Name };
        return done;
    }

    private static bool TryOpen(
        LoadedKernelFile file, [NotNullWhen(true)] out KernelModule? module, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        module = null;
        if (!ElfImage.TryRead(file.Image, out ElfImage? elf, out error))
        {
            return false;
        }

        if (file.Kind == KernelFileKind.BzImage || elf.Type != ElfFileType.Relocatable)
        {
            error = NotAModule(file.Kind == KernelFileKind.BzImage ? "a bzImage" : "a linked ELF file, as a kernel is");
            return false;
        }

        module = new KernelModule(elf);
        return true;
    }

    // The reader of files speaks of kernels.
    private static PatchDiagnostic NameKind(PatchDiagnostic error) =>
        error.Code == KernelDiagnosticCodes.NotAKernel ? NotAModule(error.Found ?? "something else") : error;

    private static PatchDiagnostic NotAModule(string found) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.NotAModule, "the file is not a kernel module") with
        {
            Found = found,
            Expected = "a relocatable ELF file (.ko), packed with gzip, xz or zstd or not at all",
            Help = "Modules are below /lib/modules of the kernel's release.",
        };

    /// <summary>A line of <c>.modinfo</c>: <c>key=value</c>, each ended by a NUL.</summary>
    private string? FindInfo(ReadOnlySpan<byte> key)
    {
        ReadOnlySpan<byte> rest = Elf.TryGetSection(InfoSection, out ElfSection? section) ? Elf.GetBytes(section).Span : default;
        while (!rest.IsEmpty)
        {
            int end = rest.IndexOf((byte)0);
            ReadOnlySpan<byte> line = end < 0 ? rest : rest[..end];
            if (line.StartsWith(key))
            {
                // A line of printable ASCII in every module; a forged one must not upset a terminal.
                ReadOnlySpan<byte> value = line[key.Length..];
                return value.Length is > 0 and <= 512 && value.IndexOfAnyExceptInRange((byte)' ', (byte)'~') < 0
                    ? System.Text.Encoding.ASCII.GetString(value) : null;
            }

            rest = end < 0 ? default : rest[(end + 1)..];
        }

        return null;
    }
}
