using PvPatch.Machine;

namespace PvPatch.Paravirt;

/// <summary>
/// What the bits of the 16-bit clobber word of a <c>.parainstructions</c> record mean, by kernel era. The word has no bit for the
/// flags: the compiler takes them as destroyed by every such site, so every set made from a word holds them.
/// </summary>
/// <remarks>
/// Sources: <c>include/asm-i386/paravirt.h</c> of 2.6.20–2.6.24, <c>include/asm-x86/paravirt.h</c> of 2.6.25–2.6.29,
/// <c>arch/x86/include/asm/paravirt_types.h</c> of 2.6.30 and later. RSI and RDI changed places in 2.6.30.
/// </remarks>
internal sealed class KernelClobberEncoding
{
    private readonly RegisterSet[] _bits;

    private KernelClobberEncoding(string name, ushort any, params RegisterSet[] bits)
    {
        Name = name;
        _bits = bits;
        Any = Decode(any);
        AnyWord = any;
    }

    /// <summary>i386, 2.6.20 to 2.6.29: bit 0 eax, 1 ecx, 2 edx; CLBR_ANY is 7.</summary>
    public static KernelClobberEncoding I386 { get; } =
        new("i386-2.6.20", 0x7, RegisterSet.Rax, RegisterSet.Rcx, RegisterSet.Rdx);

    /// <summary>x86-64, 2.6.25 to 2.6.29: rax, rcx, rdx, rsi, rdi, r8–r11; CLBR_ANY is 0x1ff.</summary>
    public static KernelClobberEncoding X64Before2630 { get; } =
        new("x86-64-2.6.25", 0x1ff, RegisterSet.Rax, RegisterSet.Rcx, RegisterSet.Rdx, RegisterSet.Rsi, RegisterSet.Rdi, RegisterSet.R8,
            RegisterSet.R9, RegisterSet.R10, RegisterSet.R11);

    /// <summary>i386 from 2.6.30: eax, ecx, edx, edi; CLBR_ANY is 0xf.</summary>
    public static KernelClobberEncoding I386Since2630 { get; } =
        new("i386-2.6.30", 0xf, RegisterSet.Rax, RegisterSet.Rcx, RegisterSet.Rdx, RegisterSet.Rdi);

    /// <summary>x86-64 from 2.6.30: rax, rcx, rdx, <b>rdi, rsi</b>, r8–r11; CLBR_ANY is 0x1ff.</summary>
    public static KernelClobberEncoding X64 { get; } =
        new("x86-64-2.6.30", 0x1ff, RegisterSet.Rax, RegisterSet.Rcx, RegisterSet.Rdx, RegisterSet.Rdi, RegisterSet.Rsi, RegisterSet.R8,
            RegisterSet.R9, RegisterSet.R10, RegisterSet.R11);

    /// <summary>The encoding's name.</summary>
    public string Name { get; }

    /// <summary>CLBR_ANY as a set: what an ordinary C function of that kernel may destroy.</summary>
    public RegisterSet Any { get; }

    /// <summary>CLBR_ANY as the kernel writes it.</summary>
    public ushort AnyWord { get; }

    /// <summary>The set a word stands for; bits the era does not define are passed over. The flags are always in it.</summary>
    /// <param name="word">The clobber word.</param>
    /// <returns>The set.</returns>
    public RegisterSet Decode(ushort word)
    {
        RegisterSet set = RegisterSet.Flags;
        for (int i = 0; i < _bits.Length; i++)
        {
            if ((word >> i & 1) != 0)
            {
                set |= _bits[i];
            }
        }

        return set;
    }

    /// <summary>The word for a set; members the era has no bit for are left out.</summary>
    /// <param name="set">The set.</param>
    /// <returns>The clobber word.</returns>
    public ushort Encode(RegisterSet set)
    {
        int word = 0;
        for (int i = 0; i < _bits.Length; i++)
        {
            if (set.Contains(_bits[i]))
            {
                word |= 1 << i;
            }
        }

        return (ushort)word;
    }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
