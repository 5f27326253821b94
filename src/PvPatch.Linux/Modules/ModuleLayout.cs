using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Modules;

/// <summary>
/// Gives every loaded section of a module its address: the one it was told, else one in the kernel's order (kernel/module, layout of
/// sections): code first, in the order of the file, each section at the next multiple of its alignment.
/// </summary>
internal sealed class ModuleLayout
{
    private const string TextSection = ".text";
    private const ulong PageSize = 4096;
    private const ulong MostAlignment = 1 << 30;

    // Read by the loader and left behind, or copied once for every processor.
    private static readonly string[] s_notLoaded = [".modinfo", "__versions", ".data..percpu"];

    private readonly ElfImage _module;
    private readonly ModulePlacement _placement;
    private readonly ElfImage _kernelElf;
    private readonly VirtualAddress _kernel;
    private readonly VirtualAddress?[] _addresses;
    private UInt128 _end;

    private ModuleLayout(ElfImage module, ModulePlacement placement, KernelImage kernel)
    {
        _module = module;
        _placement = placement;
        _kernelElf = kernel.Elf;
        _kernel = kernel.Code.Segments[0].Address;
        _addresses = new VirtualAddress?[module.Sections.Count];
    }

    /// <summary>Places a module.</summary>
    /// <param name="module">The module.</param>
    /// <param name="placement">Known addresses of its sections.</param>
    /// <param name="kernel">The kernel it is placed in.</param>
    /// <param name="addresses">The address of each section, by its index; none for those that are not loaded.</param>
    /// <param name="error">PV6144 for a name no section has, PV6145 for addresses that cannot be.</param>
    public static bool TryPlace(
        ElfImage module, ModulePlacement placement, KernelImage kernel, [NotNullWhen(true)] out VirtualAddress?[]? addresses,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        var layout = new ModuleLayout(module, placement, kernel);
        bool placed = layout.TryPlaceNamed(out error) && layout.TryPlaceCode(out error) && layout.TryPlaceRest(out error)
            && layout.TryCheckOverlap(out error);
        addresses = placed ? layout._addresses : null;
        return placed;
    }

    private static bool IsLoaded(ElfSection section) =>
        section.IsAllocated && section.Type != ElfSectionType.Null && (section.Flags & ElfSectionAttributes.ThreadLocal) == 0
            && !s_notLoaded.Contains(section.Name);

    private static bool IsInit(ElfSection section) => section.Name.StartsWith(".init", StringComparison.Ordinal);

    private static UInt128 Align(UInt128 value, ulong alignment) => (value + alignment - 1) / alignment * alignment;

    private bool TryPlaceNamed([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        foreach ((string name, VirtualAddress address) in _placement.Sections)
        {
            ElfSection? section = _module.Sections.FirstOrDefault(s => s.Name == name && s.Type != ElfSectionType.Null);
            if (section is null)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleSectionUnknown, $"the module has no section {name}") with
                {
                    Address = address,
                    Found = string.Join(", ", _module.Sections.Where(IsLoaded).Take(20).Select(static s => s.Name)),
                    Help = "Take the addresses from /sys/module/NAME/sections of this very module.",
                };
                return false;
            }

            // A kernel with kallsyms keeps the symbols too and tells where; nothing that is planned refers to them.
            if (IsLoaded(section) && !TryPlace(section, address.Value, out error))
            {
                return false;
            }
        }

        error = null;
        return true;
    }

    /// <summary>
    /// Lays out the code that stays loaded. Where a part of it has addresses already, the others follow from the same start.
    /// </summary>
    private bool TryPlaceCode([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        List<(ElfSection Section, UInt128 Offset)> area = [];
        UInt128 size = 0;
        foreach (ElfSection section in _module.Sections.Where(static s => IsLoaded(s) && s.IsExecutable && !IsInit(s)))
        {
            if (!TryGetAlignment(section, out ulong alignment, out error))
            {
                return false;
            }

            size = Align(size, alignment);
            area.Add((section, size));
            size += section.Size;
        }

        error = null;
        if (area.TrueForAll(s => _addresses[s.Section.Index] is not null))
        {
            return true;
        }

        (ElfSection? text, UInt128 before) = area.Find(static s => s.Section.Name == TextSection);
        VirtualAddress? start = (text is null ? null : _addresses[text.Index]) ?? _placement.Text;
        if (start is null || start.Value.Value < before)
        {
            error = Bad(text, "the address of the module's code is not known") with
            {
                Found = start is null
                    ? "no address for .text" : $"{start}, below {FileRange.Hex((ulong)before)} bytes of code before .text",
                Expected = "the address in /sys/module/NAME/sections/.text",
            };
            return false;
        }

        foreach ((ElfSection section, UInt128 offset) in area)
        {
            if (_addresses[section.Index] is null && !TryPlace(section, start.Value.Value - before + offset, out error))
            {
                return false;
            }
        }

        return true;
    }

    private bool TryPlaceRest([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        foreach (IGrouping<int, ElfSection> area in _module.Sections.Where(s => IsLoaded(s) && _addresses[s.Index] is null).GroupBy(AreaOf)
            .OrderBy(static a => a.Key))
        {
            UInt128 at = Align(_end, PageSize);
            foreach (ElfSection section in area)
            {
                if (!TryGetAlignment(section, out ulong alignment, out error) || !TryPlace(section, Align(at, alignment), out error))
                {
                    return false;
                }

                at = Align(at, alignment) + section.Size;
            }
        }

        return true;
    }

    private static int AreaOf(ElfSection section) =>
        (IsInit(section) ? 4 : 0) + (section.IsExecutable ? 0 : (section.Flags & ElfSectionAttributes.Write) == 0 ? 1 : 2);

    private bool TryPlace(ElfSection section, UInt128 address, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (address > ulong.MaxValue || !FileRange.FitsAddressSpace((ulong)address, section.Size, _module.Bitness))
        {
            error = Bad(section, $"the section {section.Name} would go beyond the {_module.Bitness}-bit address space") with
            {
                Found = $"{FileRange.Hex(section.Size)} bytes at 0x{address:x}",
            };
            return false;
        }

        // Distances wrap around the address space, so the relocations would not tell a number that is no kernel address at all.
        if (_module.Bitness == 64 && ((ulong)address ^ _kernel.Value) >> 63 != 0)
        {
            error = Bad(section, $"the section {section.Name} would lie in the other half of the address space than the kernel") with
            {
                Found = $"0x{address:x}",
                Expected = $"an address within 2 GiB of the kernel ({_kernel})",
                Help = "Give the run address of .text, as /sys/module/NAME/sections/.text has it: not an offset.",
            };
            return false;
        }

        _addresses[section.Index] = (ulong)address;
        _end = UInt128.Max(_end, address + section.Size);
        error = null;
        return true;
    }

    private bool TryCheckOverlap([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        ElfSection? before = null;
        foreach (ElfSection section in _module.Sections.Where(s => _addresses[s.Index] is not null && s.Size > 0)
            .OrderBy(s => _addresses[s.Index]!.Value))
        {
            if (before is not null && _addresses[section.Index]!.Value - _addresses[before.Index]!.Value is long distance
                && (ulong)distance < before.Size)
            {
                error = Bad(section, $"the sections {before.Name} and {section.Name} would share addresses") with
                {
                    Found = $"{before.Name} at {_addresses[before.Index]} with {FileRange.Hex(before.Size)} bytes",
                    Help = "Give the addresses of all sections as /sys/module/NAME/sections has them, all of one load of the module.",
                };
                return false;
            }

            before = section;
            if (_kernelElf.Sections.FirstOrDefault(k => Shares(k, section)) is ElfSection taken)
            {
                error = Bad(section, $"the section {section.Name} would share addresses with the kernel's {taken.Name}") with
                {
                    Found = $"{FileRange.Hex(section.Size)} bytes at {_addresses[section.Index]}",
                    Expected = $"addresses outside of {FileRange.Describe(taken.Address.Value, taken.Size)}",
                    Help = "Give addresses as /sys/module/NAME/sections has them, less the slide of KASLR.",
                };
                return false;
            }
        }

        return true;
    }

    private bool Shares(ElfSection kernel, ElfSection section)
    {
        ulong address = _addresses[section.Index]!.Value.Value;
        return kernel is { IsAllocated: true, Size: > 0 } && (kernel.Flags & ElfSectionAttributes.ThreadLocal) == 0
            && (address - kernel.Address.Value < kernel.Size || kernel.Address.Value - address < section.Size);
    }

    private bool TryGetAlignment(ElfSection section, out ulong alignment, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        alignment = Math.Max(section.Alignment, 1);
        error = BitOperations.IsPow2(alignment) && alignment <= MostAlignment
            ? null : Bad(section, $"the alignment of the section {section.Name} cannot be kept") with
            {
                Found = FileRange.Hex(section.Alignment),
                Expected = $"a power of two up to {FileRange.Hex(MostAlignment)}",
            };
        return error is null;
    }

    private PatchDiagnostic Bad(ElfSection? section, string message) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleBadPlacement, message) with
        {
            Address = section is null ? null : _addresses[section.Index],
            FileOffset = section?.FileOffset,
        };
}
