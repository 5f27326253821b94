using System.Globalization;
using System.Numerics;
using System.Text;

namespace PvPatch.Machine;

/// <summary>
/// A set of the machine state that code may destroy: the 16 general registers, the arithmetic flags, and the vector state
/// (x87, MMX, SSE, AVX registers, taken as one).
/// </summary>
/// <remarks>
/// Bit <c>n</c> (0–15) is the general register with encoding number <c>n</c> (rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8–r15: the
/// order of ModRM, Intel SDM volume 2, table 2-1), bit 16 the flags, bit 17 the vector state. In 32-bit code only the first eight are
/// used; a part of a register (al, eax) counts as the whole.
/// </remarks>
public readonly struct RegisterSet : IEquatable<RegisterSet>
{
    private const uint Valid = (1u << 18) - 1;

    private static readonly string[] s_names64 =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "flags", "vector"];

    private readonly uint _bits;

    private RegisterSet(uint bits) => _bits = bits;

    /// <summary>The empty set.</summary>
    public static RegisterSet None => default;

    /// <summary>rax (eax in 32-bit code).</summary>
    public static RegisterSet Rax => new(1u << 0);

    /// <summary>rcx.</summary>
    public static RegisterSet Rcx => new(1u << 1);

    /// <summary>rdx.</summary>
    public static RegisterSet Rdx => new(1u << 2);

    /// <summary>rbx.</summary>
    public static RegisterSet Rbx => new(1u << 3);

    /// <summary>rsp.</summary>
    public static RegisterSet Rsp => new(1u << 4);

    /// <summary>rbp.</summary>
    public static RegisterSet Rbp => new(1u << 5);

    /// <summary>rsi.</summary>
    public static RegisterSet Rsi => new(1u << 6);

    /// <summary>rdi.</summary>
    public static RegisterSet Rdi => new(1u << 7);

    /// <summary>r8.</summary>
    public static RegisterSet R8 => new(1u << 8);

    /// <summary>r9.</summary>
    public static RegisterSet R9 => new(1u << 9);

    /// <summary>r10.</summary>
    public static RegisterSet R10 => new(1u << 10);

    /// <summary>r11.</summary>
    public static RegisterSet R11 => new(1u << 11);

    /// <summary>r12.</summary>
    public static RegisterSet R12 => new(1u << 12);

    /// <summary>r13.</summary>
    public static RegisterSet R13 => new(1u << 13);

    /// <summary>r14.</summary>
    public static RegisterSet R14 => new(1u << 14);

    /// <summary>r15.</summary>
    public static RegisterSet R15 => new(1u << 15);

    /// <summary>The arithmetic and control flags of rflags.</summary>
    public static RegisterSet Flags => new(1u << 16);

    /// <summary>The x87, MMX, SSE and AVX registers, taken as one.</summary>
    public static RegisterSet Vector => new(1u << 17);

    /// <summary>The 16 general registers.</summary>
    public static RegisterSet AllGeneral => new(0xffff);

    /// <summary>Everything.</summary>
    public static RegisterSet All => new(Valid);

    /// <summary>The bits, as the type's remarks give them.</summary>
    public uint Bits => _bits;

    /// <summary>Whether nothing is in the set.</summary>
    public bool IsEmpty => _bits == 0;

    /// <summary>How many members the set has (flags and vector state count as one each).</summary>
    public int Count => BitOperations.PopCount(_bits);

    /// <summary>The union.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>What is in either.</returns>
    public static RegisterSet operator |(RegisterSet left, RegisterSet right) => new(left._bits | right._bits);

    /// <summary>The intersection.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>What is in both.</returns>
    public static RegisterSet operator &(RegisterSet left, RegisterSet right) => new(left._bits & right._bits);

    /// <summary>The complement.</summary>
    /// <param name="set">The set.</param>
    /// <returns>What is not in it.</returns>
    public static RegisterSet operator ~(RegisterSet set) => new(~set._bits & Valid);

    /// <summary>Equality.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>Whether both have the same members.</returns>
    public static bool operator ==(RegisterSet left, RegisterSet right) => left._bits == right._bits;

    /// <summary>Inequality.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>Whether the members differ.</returns>
    public static bool operator !=(RegisterSet left, RegisterSet right) => left._bits != right._bits;

    /// <summary>The union, as a method.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>What is in either.</returns>
    public static RegisterSet BitwiseOr(RegisterSet left, RegisterSet right) => left | right;

    /// <summary>The intersection, as a method.</summary>
    /// <param name="left">One set.</param>
    /// <param name="right">The other.</param>
    /// <returns>What is in both.</returns>
    public static RegisterSet BitwiseAnd(RegisterSet left, RegisterSet right) => left & right;

    /// <summary>The complement, as a method.</summary>
    /// <param name="set">The set.</param>
    /// <returns>What is not in it.</returns>
    public static RegisterSet OnesComplement(RegisterSet set) => ~set;

    /// <summary>Makes a set of bits as <see cref="Bits"/> gives them; unknown bits are dropped.</summary>
    /// <param name="bits">The bits.</param>
    /// <returns>The set.</returns>
    public static RegisterSet FromBits(uint bits) => new(bits & Valid);

    /// <summary>The general register with an encoding number.</summary>
    /// <param name="number">0 (rax) to 15 (r15).</param>
    /// <returns>The set with that one member.</returns>
    public static RegisterSet General(int number)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(number);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(number, 15);
        return new RegisterSet(1u << number);
    }

    /// <summary>Whether every member of <paramref name="other"/> is in this set.</summary>
    /// <param name="other">The other set.</param>
    /// <returns>Whether this is a superset (or equal).</returns>
    public bool Contains(RegisterSet other) => (other._bits & ~_bits) == 0;

    /// <summary>What is in this set but not in <paramref name="other"/>.</summary>
    /// <param name="other">What to take away.</param>
    /// <returns>The difference.</returns>
    public RegisterSet Except(RegisterSet other) => new(_bits & ~other._bits);

    /// <summary>Reads a list of names as <see cref="TryParse"/> does, or throws.</summary>
    /// <param name="text">The list.</param>
    /// <returns>The set.</returns>
    /// <exception cref="FormatException">A name is not known.</exception>
    public static RegisterSet Parse(ReadOnlySpan<char> text) =>
        TryParse(text, out RegisterSet set) ? set : throw new FormatException($"\"{text}\" is not a list of registers");

    /// <summary>
    /// Reads a list of names such as <c>rax,rdi,flags</c>; 32-bit names (eax), <c>-</c> (none) and <c>all</c> are understood.
    /// </summary>
    /// <param name="text">The list; commas, blanks or <c>|</c> between names.</param>
    /// <param name="set">The set.</param>
    /// <returns>Whether every name is known.</returns>
    public static bool TryParse(ReadOnlySpan<char> text, out RegisterSet set)
    {
        uint bits = 0;
        set = default;
        foreach (Range range in text.SplitAny(',', ' ', '|'))
        {
            ReadOnlySpan<char> name = text[range].Trim();
            if (name.IsEmpty || name is "-" or "none")
            {
                continue;
            }

            if (name.Equals("all", StringComparison.OrdinalIgnoreCase))
            {
                bits |= Valid;
                continue;
            }

            int index = IndexOf(name);
            if (index < 0)
            {
                return false;
            }

            bits |= 1u << index;
        }

        set = new RegisterSet(bits);
        return true;
    }

    /// <inheritdoc/>
    public bool Equals(RegisterSet other) => _bits == other._bits;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is RegisterSet other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => (int)_bits;

    /// <summary>The 64-bit names, comma separated in the order of <see cref="Bits"/>; <c>-</c> for the empty set.</summary>
    /// <returns>The text, which <see cref="TryParse"/> reads back.</returns>
    public override string ToString() => ToString(64);

    /// <summary>The names as they are called at a bitness.</summary>
    /// <param name="bitness">32 (eax) or 64 (rax).</param>
    /// <returns>The text, which <see cref="TryParse"/> reads back.</returns>
    public string ToString(int bitness)
    {
        if (_bits == 0)
        {
            return "-";
        }

        var text = new StringBuilder();
        for (uint rest = _bits; rest != 0; rest &= rest - 1)
        {
            int index = BitOperations.TrailingZeroCount(rest);
            string name = s_names64[index];
            if (bitness == 32 && index < 8)
            {
                name = string.Concat("e", name.AsSpan(1));
            }

            text.Append(text.Length == 0 ? "" : ",").Append(CultureInfo.InvariantCulture, $"{name}");
        }

        return text.ToString();
    }

    private static int IndexOf(ReadOnlySpan<char> name)
    {
        for (int i = 0; i < s_names64.Length; i++)
        {
            ReadOnlySpan<char> known = s_names64[i];
            bool same = name.Equals(known, StringComparison.OrdinalIgnoreCase);
            bool same32 = i < 8 && name.Length == 3 && (name[0] is 'e' or 'E')
                && name[1..].Equals(known[1..], StringComparison.OrdinalIgnoreCase);
            if (same || same32)
            {
                return i;
            }
        }

        return -1;
    }
}
