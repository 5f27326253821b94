using System.Globalization;
using PvPatch.Analysis;
using PvPatch.Linux;

namespace PvPatch.Tool.Audit;

/// <summary>Lists the code from a site to the read of a register, run by run.</summary>
internal sealed class ReadListing(KernelImage image, KernelNames names)
{
    /// <summary>Number of instructions shown at either end of a path that is too long to be shown whole.</summary>
    public const int Shown = 12;

    private const int LongestInstruction = 15;

    private readonly Disassembler _disassembler = new(image.Bitness, names.NameOf);

    /// <summary>One line an instruction, the read last. Of a long way one line in the middle says how many were left out.</summary>
    public IReadOnlyList<string> Lines(RegisterUse use)
    {
        List<string> lines = [.. use.Path.SelectMany(Decode).Select(static i => $"{i.Address} {i.Text}")];
        int cut = lines.Count - (2 * Shown);
        return cut <= 1 ? lines
            : [.. lines[..Shown], string.Create(CultureInfo.InvariantCulture, $"… {cut} instructions"), .. lines[^Shown..]];
    }

    private IEnumerable<InstructionText> Decode(CodeRun run)
    {
        int last = (int)(run.Last - run.Start);
        int length = last + LongestInstruction;
        while (length > last && !image.Code.TryGetBytes(run.Start, length, out _))
        {
            length--;
        }

        // Control may come to what is not in the image: there is nothing to show.
        return length == last ? []
            : _disassembler.Decode(image.Code.GetBytes(run.Start, length), run.Start).TakeWhile(i => i.Address <= run.Last);
    }
}
