using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Finds a kernel in a memory dump: by the dump's own notes where they are right, else at its link addresses, else by a search for pieces
/// of the image that the kernel's start never changes. Every result is checked against many pieces of the image.
/// </summary>
/// <remarks>
/// The search knows that kernels move as a whole, by 2 MiB or at least by pages. It looks at virtual addresses first (of x86-64 only at the
/// 1 GiB that kernel images are in), then at physical ones, then through page tables in physical memory: pages of a Xen PV guest may be
/// scattered over the machine.
/// </remarks>
internal static class KernelMemoryLocator
{
    private const long StartKernelMap = unchecked((long)0xffffffff80000000);

    // The room that x86-64 kernels have for their image; 32-bit ones have half of it (KERNEL_IMAGE_SIZE,
    // arch/x86/include/asm/page_64_types.h).
    private const long MaxSlide = 1L << 30;

    /// <summary>Finds a kernel in a dump, or throws. See <see cref="TryLocate"/>.</summary>
    /// <param name="image">The kernel's ELF file, as built.</param>
    /// <param name="file">The dump.</param>
    /// <returns>The kernel's memory.</returns>
    /// <exception cref="PatchException">
    /// The dump does not hold it (PV6128), or the image has nothing to be recognised by (PV6129).
    /// </exception>
    public static KernelMemory Locate(ElfImage image, MemoryFile file) =>
        TryLocate(image, file, out KernelMemory? memory, out PatchDiagnostic? error) ? memory : throw new PatchException(error);

    /// <summary>Finds a kernel in a dump.</summary>
    /// <param name="image">The kernel's ELF file, as built.</param>
    /// <param name="file">The dump.</param>
    /// <param name="memory">The kernel's memory.</param>
    /// <param name="error">
    /// Why there is none: the memory does not hold this kernel (PV6128), or the image has nothing to be recognised by (PV6129).
    /// </param>
    /// <returns>Whether it was found.</returns>
    public static bool TryLocate(
        ElfImage image, MemoryFile file, [NotNullWhen(true)] out KernelMemory? memory, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(file);
        memory = null;
        KernelSignature signature = KernelSignature.Of(image);
        if (signature.Data.Count + signature.Code.Count < 4)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.KernelNotRecognizable, "the kernel image has nothing to be recognised by in memory") with
            {
                Found = $"{signature.Data.Count} pieces of constant data and {signature.Code.Count} of code",
                Expected = "at least 4 pieces with varied bytes and no addresses",
                Help = "Is this a whole kernel image, with section headers?",
            };
            return false;
        }

        List<PatchDiagnostic> diagnostics = [.. file.Warnings];
        var search = new DisplacementSearch(signature);
        if (file.Bitness is int bitness && bitness < image.Bitness)
        {
            error = NotThere(image, file, signature, search) with { Found = $"the core of a {bitness}-bit machine" };
            return false;
        }

        if (!TryFind(
            file, image, search, diagnostics, out MemorySpace? space, out ulong displacement, out KernelFoundBy by, out MemoryMatch match))
        {
            error = NotThere(image, file, signature, search);
            return false;
        }

        long? slide = SlideVote.Take(image, signature.Range, space, displacement) ?? SlideOtherwise(file, space, displacement, by);
        CheckBase(image, signature, space, file, displacement, slide, diagnostics);
        error = null;
        memory = new KernelMemory(file, space, displacement, image.Bitness)
        {
            Slide = slide,
            FoundBy = by,
            PiecesCompared = match.Read,
            PiecesMatched = match.Matched,
            Diagnostics = diagnostics,
        };
        return true;
    }

    private static bool TryFind(
        MemoryFile file, ElfImage image, DisplacementSearch search, List<PatchDiagnostic> diagnostics,
        [NotNullWhen(true)] out MemorySpace? space, out ulong displacement, out KernelFoundBy by, out MemoryMatch match)
    {
        by = KernelFoundBy.Notes;
        if (TryNotes(file, image, search, diagnostics, out space, out displacement, out match))
        {
            return true;
        }

        by = KernelFoundBy.LinkAddress;
        space = file.VirtualSpace;
        displacement = 0;
        if (search.TryPlace(space, 0, out match))
        {
            return true;
        }

        by = KernelFoundBy.Signature;
        bool isCore = file.Kind != MemoryFileKind.Raw;
        bool isWindowed = isCore && image.Bitness == 64;
        if (isCore && search.TryLarge(space, isWindowed, out displacement, out match))
        {
            return true;
        }

        if (TryPhysical(image, isCore ? file.PhysicalSpace : file.VirtualSpace, search, out space, out displacement, ref by, out match))
        {
            return true;
        }

        space = file.VirtualSpace;
        if (search.TryPages(space, isWindowed, out displacement, out match))
        {
            return true;
        }

        space = file.PhysicalSpace;
        return search.TryPages(space, false, out displacement, out match);
    }

    // Raw memory may be at any base, and may be physical.
    private static bool TryPhysical(
        ElfImage image, MemorySpace memory, DisplacementSearch search,
        [NotNullWhen(true)] out MemorySpace? space, out ulong displacement, ref KernelFoundBy by, out MemoryMatch match)
    {
        bool isFound = search.TryLarge(memory, false, out displacement, out match);
        space = isFound ? memory : null;
        if (image.Bitness == 32 || (isFound && PageTableSearch.LeadsTo(image, search.Range, memory, displacement)))
        {
            return isFound;
        }

        // A kernel whose tables do not lead to it may be a copy; one in scattered pages is found by its tables alone.
        if (PageTableSearch.TryFind(search, memory, out MemorySpace? map, out ulong moved, out MemoryMatch mapped))
        {
            (space, displacement, by, match) = (map, moved, KernelFoundBy.PageTables, mapped);
        }

        return space is not null;
    }

    private static bool TryNotes(
        MemoryFile file, ElfImage image, DisplacementSearch search, List<PatchDiagnostic> diagnostics,
        [NotNullWhen(true)] out MemorySpace? space, out ulong displacement, out MemoryMatch match)
    {
        space = file.VirtualSpace;
        displacement = 0;
        match = default;
        if (file.Notes?.KernelOffset is not long offset)
        {
            return false;
        }

        displacement = unchecked((ulong)offset);
        if (search.TryPlace(space, displacement, out match))
        {
            return true;
        }

        // Physical = virtual - __START_KERNEL_map + phys_base (arch/x86/include/asm/page_64.h, __phys_addr_nodebug).
        if (image.Bitness == 64 && file.Notes.PhysicalBase is long physicalBase)
        {
            space = file.PhysicalSpace;
            displacement = unchecked((ulong)(offset - StartKernelMap + physicalBase));
            if (search.TryPlace(space, displacement, out match))
            {
                return true;
            }
        }

        diagnostics.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreNotesWrong, "the kernel is not where the core's notes say") with
        {
            Source = file.Path,
            Found = $"KERNELOFFSET={offset:x}, release {file.Notes.Release ?? "unknown"}",
            Help = "It was looked for without them.",
        });
        return false;
    }

    // Without pointers to ask: virtual addresses of a core move by the slide, and so do those of raw memory if its base is a virtual
    // address, that is, if the kernel is moved by no more than it can be; of physical addresses only the notes know.
    private static long? SlideOtherwise(MemoryFile file, MemorySpace space, ulong displacement, KernelFoundBy by)
    {
        long moved = unchecked((long)displacement);
        return by == KernelFoundBy.PageTables || ReferenceEquals(space, file.VirtualSpace)
            && (file.Kind != MemoryFileKind.Raw || moved is > -MaxSlide and < MaxSlide) ? moved
            : by == KernelFoundBy.Notes ? file.Notes?.KernelOffset
            : null;
    }

    private static void CheckBase(
        ElfImage image, KernelSignature signature, MemorySpace space, MemoryFile file, ulong displacement, long? slide,
        List<PatchDiagnostic> diagnostics)
    {
        if (slide is null)
        {
            diagnostics.Add(PatchDiagnostic.Warning(
                KernelDiagnosticCodes.SlideUnknown, "by how much KASLR moved the kernel can't be told from this memory") with
            {
                Source = file.Path,
                Help =
                    "Original bytes with an absolute address are compared as if it had not been moved. Give a dump that holds the "
                    + "kernel's data too.",
            });
        }
        else if (file.Kind == MemoryFileKind.Raw && ReferenceEquals(space, file.VirtualSpace) && unchecked((long)displacement) != slide
            && !(image.Bitness == 64 && PageTableSearch.LeadsTo(image, signature.Range, space, displacement)))
        {
            // Page tables that lead to where it was found say that the base is a physical one, and right.
            ulong start = file.VirtualSpace.Segments[0].Address;
            diagnostics.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.MemoryBaseWrong,
                "the base given is not the virtual address of the first byte; the kernel was found by its content") with
            {
                Source = file.Path,
                Found = $"base {new VirtualAddress(start)}",
                Expected = $"{new VirtualAddress(unchecked(start - displacement + (ulong)slide.Value))}, by the kernel's own pointers",
                Help = "A physical base is right too; nothing needs to be done.",
            });
        }
    }

    private static PatchDiagnostic NotThere(ElfImage image, MemoryFile file, KernelSignature signature, DisplacementSearch search)
    {
        MemoryMatch best = search.Best;
        string release = file.Notes?.Release is string told ? $", and the notes tell of release {told}" : "";
        string nearest = best.Matched == 0
            ? "none of its pieces stands anywhere"
            : $"at the best place {best.Matched} of {best.Read} pieces{(best.Banner == false ? ", and another banner" : "")}";
        return PatchDiagnostic.Error(KernelDiagnosticCodes.KernelNotInMemory, "the memory does not hold this kernel") with
        {
            Source = file.Path,
            Address = signature.Range.Low,
            Found = $"{nearest}, of {search.Places} places looked at{release}{Seen(signature, search)}",
            Expected =
                $"{image.Bitness}-bit kernel \"{signature.BannerText}\": {signature.Data.Count} pieces of data and "
                + $"{signature.Code.Count} of code, moved by whole pages",
            Help = search.IsMisled
                ? "So much of the memory looks like the kernel that the search was given up; cut out the part that holds the kernel."
                : search.IsExhausted
                ? "There is more memory than is looked through; cut out the part that holds the kernel."
                : "Is the dump of a machine that ran just this build? Are the kernel's pages in it?",
        };
    }

    // A banner may also be read from a log, so it says which kernel ran and not where one is.
    private static string Seen(KernelSignature signature, DisplacementSearch search) => search.BannerSeen is not string seen ? ""
        : seen == signature.BannerText ? ", and its banner stands there: the dump lacks the kernel's own pages"
        : $", and what stands there is \"{seen}\"";
}
