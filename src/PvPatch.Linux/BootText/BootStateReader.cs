using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>Reads the state that decides a kernel's text from its data in memory.</summary>
/// <remarks>
/// Data of a kernel that is up gives the same text as data at the moment of patching, so any dump will do. What cannot be read stays
/// unknown.
/// Two things stand in text alone: where the pages of ITS thunks begin, and runtime constants whose variable was optimised away or freed.
/// </remarks>
internal sealed class BootStateReader
{
    private const int MostFeatureWords = 64; // 7.2 has 24

    private readonly TextKernel _kernel;
    private readonly KernelMemory _memory;
    private readonly long _slide;

    private BootStateReader(TextKernel kernel, KernelMemory memory, long slide)
    {
        _kernel = kernel;
        _memory = memory;
        _slide = slide;
    }

    /// <summary>Reads the state.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="memory">Its memory.</param>
    /// <param name="state">The state; what the memory lacks is unknown.</param>
    /// <param name="error">Why there is none: the slide is not known, so pointers mean nothing (PV6203).</param>
    /// <returns>Whether there is a state.</returns>
    public static bool TryRead(
        TextKernel kernel, KernelMemory memory, [NotNullWhen(true)] out BootState? state, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (memory.Slide is not long slide)
        {
            state = null;
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.TextStateUnreadable, "pointers in the memory cannot be read: the kernel's slide is not known");
            return false;
        }

        var reader = new BootStateReader(kernel, memory, slide);
        state = new BootState
        {
            Slide = slide,
            Features = reader.ReadFeatures(),
            Keys = reader.ReadKeys(),
            StaticCalls = reader.ReadStaticCalls(),
            Slots = [.. kernel.Image.SlotWords.Select(w => w.IsZero ? null : reader.Pointer(w))],
            ReturnThunk = reader.PointerAt("x86_return_thunk"),
            IsUniprocessor = reader.ReadUniprocessor(),
            Nops = reader.ReadNops(),
            RuntimeConstants = reader.ReadRuntimeConstants(),
            ItsPage = reader.FindItsPage(),
        };
        error = null;
        return true;
    }

    private FeatureWords ReadFeatures()
    {
        if (_kernel.Symbol("boot_cpu_data") is not VirtualAddress cpu
            || !_kernel.Elf.TryGetSection(KernelLayoutReader.Section, out ElfSection? types)
            || !BtfFile.TryRead(_kernel.Elf.GetBytes(types), out BtfFile? btf, out _)
            || !BtfMemberSearch.TryFind(btf, "cpuinfo_x86", "x86_capability", out BtfMemberPlace place)
            || place.Size is < sizeof(uint) or > MostFeatureWords * sizeof(uint) || place.Size % sizeof(uint) != 0)
        {
            return FeatureWords.Unknown;
        }

        byte[] bytes = new byte[place.Size];
        if (!_memory.TryRead(cpu + place.Offset, bytes))
        {
            return FeatureWords.Unknown;
        }

        uint[] words = new uint[bytes.Length / sizeof(uint)];
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(i * sizeof(uint)));
        }

        return FeatureWords.Of(words);
    }

    private Dictionary<VirtualAddress, int> ReadKeys()
    {
        var keys = new Dictionary<VirtualAddress, int>();
        TextTable table = _kernel.Table(TextTableKind.JumpLabels);
        Span<byte> bytes = stackalloc byte[sizeof(int)];
        for (int i = 0; i < table.CountOf(JumpLabel.Stride); i++)
        {
            VirtualAddress key = JumpLabel.Read(table, i).Key;
            if (!keys.ContainsKey(key) && _kernel.IsData(key, sizeof(int)) && _memory.TryRead(key, bytes))
            {
                keys.Add(key, BinaryPrimitives.ReadInt32LittleEndian(bytes));
            }
        }

        return keys;
    }

    private Dictionary<VirtualAddress, VirtualAddress> ReadStaticCalls()
    {
        var calls = new Dictionary<VirtualAddress, VirtualAddress>();
        foreach (VirtualAddress key in StaticTrampolines.Keys(_kernel))
        {
            if (Pointer(key) is VirtualAddress function)
            {
                calls.Add(key, function);
            }
        }

        return calls;
    }

    private bool? ReadUniprocessor()
    {
        Span<byte> one = stackalloc byte[1];
        return _kernel.Symbol("uniproc_patched") is VirtualAddress flag && _memory.TryRead(flag, one) ? one[0] != 0 : null;
    }

    private NopStyle? ReadNops()
    {
        VirtualAddress? nops = _kernel.Rules.RewritesJumpLabels ? PointerAt("ideal_nops") : null;
        return nops is null ? null
            : nops == _kernel.Symbol("p6_nops") ? NopStyle.P6
            : nops == _kernel.Symbol("k8_nops") ? NopStyle.K8
            : null;
    }

    private Dictionary<string, ulong> ReadRuntimeConstants()
    {
        var values = new Dictionary<string, ulong>(StringComparer.Ordinal);
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        foreach (RuntimeConstant constant in RuntimeConstant.Find(_kernel))
        {
            bytes.Clear();
            bool isKept = _kernel.Symbol(constant.Symbol) is VirtualAddress variable && !IsFreed(variable);
            if (isKept ? _memory.TryRead(_kernel.Symbol(constant.Symbol)!.Value, bytes[..constant.Size])
                : TryReadOperands(constant, bytes[..constant.Size]))
            {
                values[constant.Symbol] = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
            }
        }

        return values;
    }

    /// <summary>The value in the text, where all operands that are there agree. One value out of the text that must be a pointer.</summary>
    private bool TryReadOperands(RuntimeConstant constant, Span<byte> value)
    {
        Span<byte> next = stackalloc byte[sizeof(ulong)];
        next = next[..constant.Size];
        bool any = false;
        for (int i = 0; i < constant.Count; i++)
        {
            if (IsFreed(constant[i]) || !_memory.TryRead(constant[i], next))
            {
                continue;
            }

            if (any && !next.SequenceEqual(value))
            {
                return false;
            }

            next.CopyTo(value);
            any = true;
        }

        return any && (constant.Size != sizeof(ulong) || IsKernelPointer(BinaryPrimitives.ReadUInt64LittleEndian(value)));
    }

    /// <summary>The page of the first call or jump of the retpoline sites that leads out of the kernel.</summary>
    private VirtualAddress? FindItsPage()
    {
        TextTable table = _kernel.Table(TextTableKind.Retpolines);
        Span<byte> bytes = stackalloc byte[6];
        for (int at = 0; at < table.Bytes.Length; at += sizeof(int))
        {
            VirtualAddress site = table.Relative(at);
            if (IsFreed(site) || !_kernel.IsText(site, 6) || !_memory.TryRead(site, bytes))
            {
                continue;
            }

            int prefix = bytes[0] == 0x2e ? 1 : 0; // cs
            if (bytes[prefix] is BranchBytes.Call or BranchBytes.Jump)
            {
                VirtualAddress target = BranchBytes.Target(site + prefix, bytes[prefix..]);
                if (!_kernel.IsText(target, 1))
                {
                    return target.Value & ~0xfffUL;
                }
            }
        }

        return null;
    }

    /// <summary>Whether a value is an address of the kernel's half, with page tables of five levels too.</summary>
    private static bool IsKernelPointer(ulong value) => value >> 56 == 0xff;

    private bool IsFreed(VirtualAddress address) =>
        _kernel.Elf.Sections.Any(s => s.IsAllocated && s.Contains(address, 1) && InitAreas.IsFreed(s.Name));

    private VirtualAddress? PointerAt(string symbol) => _kernel.Symbol(symbol) is VirtualAddress at ? Pointer(at) : null;

    private VirtualAddress? Pointer(VirtualAddress address)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        if (!_memory.TryRead(address, bytes))
        {
            return null;
        }

        ulong value = BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        return value == 0 ? VirtualAddress.Zero : new VirtualAddress(unchecked(value - (ulong)_slide));
    }
}
