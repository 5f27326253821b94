using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.BootText;

/// <summary>The text of a memory image that still is the kernel's: all but the sections that are freed when the kernel is up.</summary>
internal sealed class TextEvidence
{
    private readonly List<(VirtualAddress Address, byte[] Bytes)> _sections = [];

    /// <summary>Reads the text.</summary>
    public TextEvidence(TextKernel kernel, KernelMemory memory)
    {
        Kernel = kernel;
        foreach (ElfSection section in kernel.Elf.Sections.Where(TextImage.IsText).Where(static s => !InitAreas.IsFreed(s.Name)))
        {
            byte[] bytes = new byte[(int)section.Size];
            if (memory.TryRead(section.Address, bytes))
            {
                _sections.Add((section.Address, bytes));
            }
        }
    }

    /// <summary>The kernel.</summary>
    public TextKernel Kernel { get; }

    /// <summary>The bytes in memory at a link address.</summary>
    public bool TryGet(VirtualAddress address, int length, out ReadOnlySpan<byte> bytes)
    {
        foreach ((VirtualAddress start, byte[] section) in _sections)
        {
            if (address >= start && FileRange.Fits(address.Value - start.Value, (ulong)length, section.Length))
            {
                bytes = section.AsSpan((int)(address.Value - start.Value), length);
                return true;
            }
        }

        bytes = default;
        return false;
    }
}

/// <summary>Votes of sites on one value each of many things; what is said most often wins.</summary>
internal sealed class Ballot<TThing, TValue>
    where TThing : notnull
    where TValue : notnull
{
    private readonly Dictionary<TThing, Dictionary<TValue, int>> _votes = [];

    /// <summary>The things there were votes on.</summary>
    public IEnumerable<TThing> Things => _votes.Keys;

    /// <summary>Adds a vote.</summary>
    public void Vote(TThing thing, TValue value)
    {
        if (!_votes.TryGetValue(thing, out Dictionary<TValue, int>? values))
        {
            _votes.Add(thing, values = []);
        }

        values[value] = values.GetValueOrDefault(value) + 1;
    }

    /// <summary>The value with the most votes; none where there is no vote, or two values have as many.</summary>
    public bool TryGetWinner(TThing thing, [System.Diagnostics.CodeAnalysis.MaybeNullWhen(false)] out TValue value)
    {
        value = default;
        int most = 0;
        bool isTied = true;
        foreach ((TValue candidate, int count) in _votes.GetValueOrDefault(thing) ?? [])
        {
            isTied = count == most || (count < most && isTied);
            if (count > most)
            {
                (value, most, isTied) = (candidate, count, false);
            }
        }

        return !isTied;
    }
}
