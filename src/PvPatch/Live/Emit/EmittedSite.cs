using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// A site before it has an address, and its forwarding island. Until its block has one, a placeholder stands for each in the assembler: a
/// trap that carries a number, so that code which gets into a machine without <see cref="CodeArena.Emit(Assembler, SiteEmitter)"/> traps,
/// and so that each site is known again.
/// </summary>
/// <remarks>
/// <code>
/// before   0f 0b  nn nn nn nn  cc cc     ud2, the number, int3 as far as the site goes
/// behind   2e 2e  ff 15  dd dd dd dd     cs cs call [rip+slot], ending where the site ends
/// </code>
/// Iced keeps 16 bytes of each data instruction, and emits as many as it has: so the number is there of shorter sites too.
/// </remarks>
/// <param name="Instruction">Index of its first instruction in the assembler.</param>
/// <param name="Kind">Slot, budget and so on.</param>
/// <param name="Placement">Where it may lie.</param>
/// <param name="Forwarding">Whether it wants a forwarding island.</param>
/// <param name="Start">Its place in a 64-byte line, where that is asked for; else -1.</param>
/// <param name="Placeholder">Number of its placeholder.</param>
internal readonly record struct EmittedSite(
    int Instruction, PatchSite Kind, SitePlacement Placement, bool Forwarding, int Start, uint Placeholder = 0)
{
    /// <summary>Bytes of a forwarding island: <c>call [rip+slot]; jmp site's end</c>, or <c>jmp [rip+slot]</c>.</summary>
    public const int IslandLength = PrefixPadding.IndirectLength + 5;

    private const int MarkedLength = 6;
    private const int LongestData = 16; // what Iced declares at once

    // Numbers are spread over 32 bits, so that a host's own data is not taken for one of the few that were given out.
    private const uint Spread = 0x9e3779b1;
    private static readonly uint s_gather = InverseOf(Spread);
    private static uint s_last;

    /// <summary>Index of the forwarding island in the assembler; -1 where none was emitted.</summary>
    public int Island { get; init; } = -1;

    /// <summary>What it depends on; nothing where it is an operation's.</summary>
    public EmittedSetting? Setting { get; init; }

    /// <summary>What loads its argument, if it has one.</summary>
    public ArgumentCode Argument { get; init; }

    /// <summary>Number of the island's placeholder.</summary>
    public uint IslandPlaceholder { get; init; }

    /// <summary>Bytes to put before the site so that it lies where it may.</summary>
    /// <param name="offset">Where it would begin, counted from a multiple of 64.</param>
    public int PaddingFor(long offset)
    {
        for (int padding = 0; padding < SiteRecord.LineSize; padding++)
        {
            VirtualAddress address = (ulong)(offset + padding);
            if (Start < 0 ? Holds(Placement, address, Kind.Budget) : (int)(address.Value % SiteRecord.LineSize) == Start)
            {
                return padding;
            }
        }

        return 0; // longer than a line: there is no better place than this one
    }

    /// <summary>Whether a site at an address lies where a placement wants it.</summary>
    public static bool Holds(SitePlacement placement, VirtualAddress address, int budget) => placement switch
    {
        SitePlacement.InsideAligned8 => SiteRecord.Fits(address, budget, 8),
        // Where no store is 16 bytes wide, it needs a guard as it does in a line.
        SitePlacement.InsideAligned16 => SiteRecord.Fits(address, budget, 16)
            && (SiteRecord.Fits(address, budget, 8) || SiteRecord.Fits(address, 2, 8)),
        SitePlacement.WithinCacheLine => SiteRecord.Fits(address, budget, SiteRecord.LineSize)
            && (SiteRecord.Fits(address, budget, 8) || SiteRecord.Fits(address, 2, 8)),
        _ => true,
    };

    /// <summary>Emits a placeholder of 2 bytes or more.</summary>
    /// <returns>Its number.</returns>
    public static uint EmitPlaceholder(Assembler assembler, int length)
    {
        uint number = Interlocked.Increment(ref s_last);
        byte[] data = new byte[Math.Min(length, LongestData)];
        var marked = Iced.Intel.Instruction.CreateDeclareByte(data);
        marked.SetDeclareByteValue(0, 0x0f);
        marked.SetDeclareByteValue(1, 0x0b);
        for (int i = 0; i < sizeof(uint); i++)
        {
            marked.SetDeclareByteValue(2 + i, (byte)(unchecked(number * Spread) >> 8 * i));
        }

        for (int i = MarkedLength; i < data.Length; i++)
        {
            marked.SetDeclareByteValue(i, 0xcc);
        }

        assembler.AddInstruction(marked);
        if (length > data.Length)
        {
            data.AsSpan().Fill(0xcc);
            for (int left = length - data.Length; left > 0; left -= data.Length)
            {
                assembler.db(data, 0, Math.Min(left, data.Length));
            }
        }

        return number;
    }

    /// <summary>
    /// Checks that each placeholder of an assembler is claimed by a site or island that was emitted there, and each of these has its
    /// placeholder.
    /// </summary>
    /// <param name="instructions">The assembler's instructions.</param>
    /// <param name="sites">The sites, in order of address.</param>
    /// <exception cref="PatchException">PV8014.</exception>
    public static void CheckPlaceholders(IReadOnlyList<Instruction> instructions, ReadOnlySpan<EmittedSite> sites)
    {
        ReadOnlySpan<(int Instruction, uint Number)> claims = Claims(sites);
        int next = 0;
        for (int i = 0; i < instructions.Count; i++)
        {
            bool claimed = next < claims.Length && claims[next].Instruction == i;
            bool found = TryRead(instructions[i], out uint number);
            if (claimed && !(found && claims[next].Number == number))
            {
                throw Gone(i);
            }

            if (claimed)
            {
                next++;
            }
            else if (found)
            {
                throw new PatchException(SiteEmitter.Misuse("the assembler holds a site that no emitter claims") with
                {
                    Found = $"instruction {i}",
                    Help =
                        "Give every emitter that emitted into the assembler. An assembler's code can be put into an arena once: reset "
                        + "it and emit anew.",
                });
            }
        }

        if (next < claims.Length)
        {
            throw Gone(claims[next].Instruction);
        }
    }

    /// <summary>What stands in the assembler for sites and islands, in order.</summary>
    private static (int Instruction, uint Number)[] Claims(ReadOnlySpan<EmittedSite> sites)
    {
        int islands = 0;
        foreach (ref readonly EmittedSite site in sites)
        {
            islands += site.Island >= 0 ? 1 : 0;
        }

        var claims = new (int Instruction, uint Number)[sites.Length + islands];
        int next = 0;
        foreach (ref readonly EmittedSite site in sites)
        {
            claims[next++] = (site.Instruction, site.Placeholder);
            if (site.Island >= 0)
            {
                claims[next++] = (site.Island, site.IslandPlaceholder);
            }
        }

        if (islands > 0)
        {
            claims.AsSpan().Sort(static (a, b) => a.Instruction.CompareTo(b.Instruction));
        }

        return claims;
    }

    private static PatchException Gone(int instruction) =>
        new(SiteEmitter.Misuse("a site does not stand in the assembler where it was emitted") with
        {
            Found = $"instruction {instruction}",
            Help = "Where the assembler is reset, clear the emitter too.",
        });

    private static bool TryRead(in Instruction instruction, out uint number)
    {
        number = 0;
        if (instruction.Code != Code.DeclareByte || instruction.DeclareDataCount < 2
            || instruction.GetDeclareByteValue(0) != 0x0f || instruction.GetDeclareByteValue(1) != 0x0b)
        {
            return false;
        }

        uint spread = 0;
        for (int i = 0; i < sizeof(uint); i++)
        {
            spread |= (uint)instruction.GetDeclareByteValue(2 + i) << 8 * i;
        }

        number = unchecked(spread * s_gather);
        return number != 0 && number <= Volatile.Read(ref s_last);
    }

    /// <summary>The factor that undoes an odd one, modulo 2^32: Newton's iteration doubles the right bits each time, from three.</summary>
    private static uint InverseOf(uint factor)
    {
        uint inverse = factor;
        for (int bits = 3; bits < 32; bits *= 2)
        {
            inverse = unchecked(inverse * (2 - factor * inverse));
        }

        return inverse;
    }
}
