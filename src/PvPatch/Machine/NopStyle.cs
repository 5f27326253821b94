using System.Buffers.Binary;

namespace PvPatch.Machine;

/// <summary>How bytes a body leaves free are filled: one table of no-operations by length, and the rule for longer stretches.</summary>
/// <remarks>
/// The families P6, K8, K7 and intel are those of Linux 2.6.20 to 5.10 (<c>arch/x86/include/asm/nops.h</c>), which chose one by
/// processor; from 5.13 on there is one table for 64-bit and one for 32-bit code (<c>x86_nops</c>), which 6.12 has up to 11 bytes.
/// </remarks>
public sealed class NopStyle
{
    private readonly byte[][] _nops;
    private readonly bool _jumpsOver;
    private readonly bool _is32BitOnly;

    private NopStyle(string name, bool jumpsOver, bool is32BitOnly, params byte[][] nops)
    {
        Name = name;
        _jumpsOver = jumpsOver;
        _is32BitOnly = is32BitOnly;
        _nops = nops;
    }

    /// <summary>The generic 32-bit forms: <c>lea</c> and <c>mov</c> of a register to itself; run on every x86, 32-bit code only.</summary>
    public static NopStyle Intel { get; } = new(
        "intel",
        jumpsOver: false,
        is32BitOnly: true,
        [0x90], // nop
        [0x89, 0xf6], // mov esi,esi
        [0x8d, 0x76, 0x00], // lea esi,[esi+0] (disp8)
        [0x8d, 0x74, 0x26, 0x00], // lea esi,[esi*1+0] (disp8)
        [0x90, 0x8d, 0x74, 0x26, 0x00], // nop; the 4-byte form
        [0x8d, 0xb6, 0x00, 0x00, 0x00, 0x00], // lea esi,[esi+0] (disp32)
        [0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00], // lea esi,[esi*1+0] (disp32)
        [0x90, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00]); // nop; the 7-byte form

    /// <summary>Operand-size prefixes before <c>nop</c>: best on AMD K8. From 5 bytes on these are two instructions.</summary>
    public static NopStyle K8 { get; } = new(
        "k8",
        jumpsOver: false,
        is32BitOnly: false,
        [0x90],
        [0x66, 0x90],
        [0x66, 0x66, 0x90],
        [0x66, 0x66, 0x66, 0x90],
        [0x66, 0x66, 0x90, 0x66, 0x90], // 3 + 2
        [0x66, 0x66, 0x90, 0x66, 0x66, 0x90], // 3 + 3
        [0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x90], // 4 + 3
        [0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x66, 0x90]); // 4 + 4

    /// <summary><c>lea eax,[eax]</c> forms: best on AMD K7, 32-bit code only.</summary>
    public static NopStyle K7 { get; } = new(
        "k7",
        jumpsOver: false,
        is32BitOnly: true,
        [0x90],
        [0x8b, 0xc0], // mov eax,eax
        [0x8d, 0x04, 0x20], // lea eax,[eax]
        [0x8d, 0x44, 0x20, 0x00], // lea eax,[eax+0] (disp8)
        [0x8d, 0x44, 0x20, 0x00, 0x90], // the same; nop
        [0x8d, 0x80, 0x00, 0x00, 0x00, 0x00], // lea eax,[eax+0] (disp32)
        [0x8d, 0x04, 0x05, 0x00, 0x00, 0x00, 0x00], // lea eax,[eax*1+0]
        [0x8d, 0x04, 0x05, 0x00, 0x00, 0x00, 0x00, 0x90]); // the same; nop

    /// <summary>
    /// The multi-byte <c>nop r/m</c> (0f 1f) that Intel recommends (SDM volume 2, NOP); every length up to 8 is one instruction.
    /// </summary>
    public static NopStyle P6 { get; } = new("p6", jumpsOver: false, is32BitOnly: false, P6Nops());

    /// <summary><c>x86_nops</c> of 5.13 to 6.7 for 64-bit code: the bytes of <see cref="P6"/>, on every processor.</summary>
    public static NopStyle Linux61X64 { get; } = new("x86_nops-6.1", jumpsOver: false, is32BitOnly: false, P6Nops());

    /// <summary>
    /// <c>x86_nops</c> of 5.13 to 6.7 for 32-bit code: the generic forms, but one instruction at 5 and 8 bytes (a ds prefix in place of the
    /// nop).
    /// </summary>
    public static NopStyle Linux61X86 { get; } = new("x86_nops-6.1-32", jumpsOver: false, is32BitOnly: true, Single32Nops());

    /// <summary><c>x86_nops</c> of 6.12 for 64-bit code: up to 11 bytes in one; a longer stretch is jumped over and holds int3.</summary>
    public static NopStyle Linux612X64 { get; } = new(
        "x86_nops-6.12",
        jumpsOver: true,
        is32BitOnly: false,
        [
            .. P6Nops(),
            [0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00], // cs prefixes, not 66, before the 8-byte form
            [0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            [0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ]);

    /// <summary><c>x86_nops</c> of 6.12 for 32-bit code: up to 8 bytes in one; a longer stretch is jumped over and holds int3.</summary>
    public static NopStyle Linux612X86 { get; } = new("x86_nops-6.12-32", jumpsOver: true, is32BitOnly: true, Single32Nops());

    /// <summary>Every style known.</summary>
    public static IReadOnlyList<NopStyle> All { get; } = [Intel, K8, K7, P6, Linux61X64, Linux61X86, Linux612X64, Linux612X86];

    /// <summary>The style's name.</summary>
    public string Name { get; }

    /// <summary>The longest no-operation of the table, in bytes.</summary>
    public int Longest => _nops.Length;

    /// <summary>
    /// The style used where none is asked for: <see cref="P6"/> for 64-bit code, <see cref="Intel"/> for 32-bit code, which runs on every
    /// x86.
    /// </summary>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The style.</returns>
    public static NopStyle Default(int bitness) => bitness == 64 ? P6 : Intel;

    /// <summary>
    /// Whether the instructions do nothing in code of a bitness. The 32-bit families move a 32-bit register to itself, which in 64-bit code
    /// clears the upper half of that register.
    /// </summary>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>Whether they do nothing.</returns>
    public bool Supports(int bitness) => bitness == 32 || (bitness == 64 && !_is32BitOnly);

    /// <summary>Fills a span with no-operations that end exactly at its end.</summary>
    /// <param name="destination">What to fill; may be empty.</param>
    /// <param name="bitness">Bitness of the code: 32 or 64.</param>
    /// <exception cref="ArgumentException">The style is for 32-bit code only and <paramref name="bitness"/> is 64.</exception>
    public void Fill(Span<byte> destination, int bitness)
    {
        ThrowUnlessSupported(bitness);
        Fill(destination);
    }

    /// <summary>Throws where the style changes registers in code of a bitness.</summary>
    internal void ThrowUnlessSupported(int bitness)
    {
        if (!Supports(bitness))
        {
            throw new ArgumentException($"the nops {Name} change registers in {bitness}-bit code", nameof(bitness));
        }
    }

    /// <summary>Fills a span, for a caller that has asked <see cref="Supports"/>.</summary>
    internal void Fill(Span<byte> destination)
    {
        if (_jumpsOver && destination.Length > Longest)
        {
            JumpOver(destination);
            return;
        }

        // The kernel's add_nops: the longest there is, again and again, so 9 bytes are 8 and 1.
        while (!destination.IsEmpty)
        {
            byte[] nop = _nops[Math.Min(destination.Length, Longest) - 1];
            nop.CopyTo(destination);
            destination = destination[nop.Length..];
        }
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private static void JumpOver(Span<byte> destination)
    {
        // int3 behind the jump: nothing may run there, and straight-line speculation stops at it. The kernel takes the short jump by
        // the length of the whole run, although it would reach over two bytes more.
        destination.Fill(0xcc);
        if (destination.Length < 128)
        {
            destination[0] = 0xeb; // jmp rel8
            destination[1] = (byte)(destination.Length - 2);
        }
        else
        {
            destination[0] = 0xe9; // jmp rel32
            BinaryPrimitives.WriteInt32LittleEndian(destination[1..], destination.Length - 5);
        }
    }

    private static byte[][] P6Nops() =>
    [
        [0x90], // nop
        [0x66, 0x90], // xchg ax,ax
        [0x0f, 0x1f, 0x00], // nop dword [rax]
        [0x0f, 0x1f, 0x40, 0x00], // nop dword [rax+0] (disp8)
        [0x0f, 0x1f, 0x44, 0x00, 0x00], // nop dword [rax+rax+0] (disp8)
        [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00], // nop word [rax+rax+0] (disp8)
        [0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00], // nop dword [rax+0] (disp32)
        [0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00], // nop dword [rax+rax+0] (disp32)
    ];

    private static byte[][] Single32Nops() =>
    [
        [0x90],
        [0x89, 0xf6],
        [0x8d, 0x76, 0x00],
        [0x8d, 0x74, 0x26, 0x00],
        [0x3e, 0x8d, 0x74, 0x26, 0x00], // ds: lea esi,[esi*1+0] (disp8)
        [0x8d, 0xb6, 0x00, 0x00, 0x00, 0x00],
        [0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00],
        [0x3e, 0x8d, 0xb4, 0x26, 0x00, 0x00, 0x00, 0x00], // ds: lea esi,[esi*1+0] (disp32)
    ];
}
