using Iced.Intel;

namespace PvPatch.Live;

/// <summary>
/// What stands in an assembler for a site or a forwarding island until its block has an address: a trap that carries a number, so that code
/// which gets into a machine without <see cref="CodeArena.Emit(Assembler, SiteEmitter)"/> traps, and so that each site is known again.
/// </summary>
/// <remarks>
/// <code>
/// before   0f 0b  nn nn nn nn  cc cc     ud2, the number, int3 as far as the site goes
/// behind   2e 2e  ff 15  dd dd dd dd     cs cs call [rip+slot], ending where the site ends
/// </code>
/// Iced keeps 16 bytes of each data instruction, and emits as many as it has: so the number is there of shorter sites too.
/// </remarks>
internal static class Placeholder
{
    private const int MarkedLength = 6;
    private const int LongestData = 16; // what Iced declares at once

    // Numbers are spread over 32 bits, so that a host's own data is not taken for one of the few that were given out.
    private const uint Spread = 0x9e3779b1;
    private static readonly uint s_gather = InverseOf(Spread);
    private static uint s_last;

    /// <summary>Emits a placeholder of 2 bytes or more.</summary>
    /// <returns>Its number.</returns>
    public static uint Emit(Assembler assembler, int length)
    {
        uint number = Interlocked.Increment(ref s_last);
        byte[] data = new byte[Math.Min(length, LongestData)];
        Instruction marked = Instruction.CreateDeclareByte(data);
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
    public static void Check(IReadOnlyList<Instruction> instructions, ReadOnlySpan<EmittedSite> sites)
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
