using System.Buffers.Binary;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Finds the KASLR slide of a kernel whose place in a memory file is known: pointers in its data are larger in memory by the slide.
/// Physical addresses say nothing of it; on x86-64 both are chosen apart.
/// </summary>
internal static class SlideVote
{
    private const int PerSection = 64;
    private const int PlacesPerPointer = 4096;
    private const int Fewest = 4;

    /// <summary>The slide, where at least half of the pointers that can be read (and at least four) agree on one of whole pages.</summary>
    public static long? Take(ElfImage image, (ulong Low, ulong High) range, MemorySpace space, ulong displacement)
    {
        int width = image.Bitness / 8;
        Span<byte> word = stackalloc byte[8];
        word.Clear();
        int read = 0;
        var votes = new Dictionary<long, int>();
        foreach ((ulong address, ulong value) in Pointers(image, range))
        {
            if (!space.TryRead(unchecked(address + displacement), word[..width]))
            {
                continue;
            }

            read++;
            ulong there = BinaryPrimitives.ReadUInt64LittleEndian(word);
            long slide = width == 8 ? unchecked((long)(there - value)) : unchecked((int)((uint)there - (uint)value));
            votes[slide] = votes.GetValueOrDefault(slide) + 1;
        }

        if (votes.Count == 0)
        {
            return null;
        }

        KeyValuePair<long, int> most = votes.MaxBy(static v => v.Value);
        return most.Value >= Fewest && most.Value * 2 >= read && most.Key % 4096 == 0 ? most.Key : null;
    }

    private static IEnumerable<(ulong Address, ulong Value)> Pointers(ElfImage image, (ulong Low, ulong High) range)
    {
        int width = image.Bitness / 8;
        foreach (ElfSection section in InitAreas.Of(image).Kept(image).Where(static s => s.HasFileContent && !s.IsExecutable))
        {
            ReadOnlyMemory<byte> content = image.GetBytes(section);
            int skip = (int)((ulong)-(long)section.Address.Value & (ulong)(width - 1));
            int places = Math.Max(0, content.Length - skip) / width;
            int step = Math.Max(1, places / PerSection);
            for (int first = 0; first < places; first += step)
            {
                int last = Math.Min(Math.Min(first + step, places), first + PlacesPerPointer);
                for (int place = first; place < last; place++)
                {
                    int at = skip + place * width;
                    ulong value = Read(content.Span[at..], width);
                    if (value >= range.Low && value <= range.High)
                    {
                        yield return (section.Address.Value + (ulong)at, value);
                        break;
                    }
                }
            }
        }
    }

    private static ulong Read(ReadOnlySpan<byte> bytes, int width) =>
        width == 8 ? BinaryPrimitives.ReadUInt64LittleEndian(bytes) : BinaryPrimitives.ReadUInt32LittleEndian(bytes);
}
