using PvPatch.Linux.Files;

namespace PvPatch.Linux.BootText;

/// <summary>One executable section: the file's bytes, those predicted, and who wrote each of them.</summary>
internal sealed class TextSection
{
    /// <summary>In an owner: the state does not decide the byte.</summary>
    internal const byte Open = 0x80;

    private readonly ReadOnlyMemory<byte> _original;
    private readonly byte[] _bytes;
    private readonly byte[] _owners;

    internal TextSection(string name, VirtualAddress address, ReadOnlyMemory<byte> original)
    {
        Name = name;
        Address = address;
        _original = original;
        _bytes = original.ToArray();
        _owners = new byte[_bytes.Length];
    }

    /// <summary>The section's name.</summary>
    public string Name { get; }

    /// <summary>Link address of its first byte.</summary>
    public VirtualAddress Address { get; }

    /// <summary>Its size in bytes.</summary>
    public int Length => _bytes.Length;

    /// <summary>
    /// Whether the kernel patches it by an initcall of its own, after it has patched its text: before, all of it is as in the file.
    /// </summary>
    public bool IsPatchedLate { get; init; }

    /// <summary>The bytes in the file.</summary>
    public ReadOnlySpan<byte> Original => _original.Span;

    /// <summary>The bytes predicted.</summary>
    public ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>The mechanism that wrote a byte last.</summary>
    /// <param name="offset">Offset in the section.</param>
    public TextMechanism OwnerAt(int offset) => (TextMechanism)(_owners[offset] & ~Open);

    /// <summary>Whether the state leaves open what a byte is.</summary>
    /// <param name="offset">Offset in the section.</param>
    public bool IsOpen(int offset) => (_owners[offset] & Open) != 0;

    internal bool HasOpen(int offset, int length) => _owners.AsSpan(offset, length).ContainsAnyInRange(Open, byte.MaxValue);

    internal bool Contains(VirtualAddress address, int length) =>
        address >= Address && FileRange.Fits(unchecked(address.Value - Address.Value), (ulong)length, _bytes.Length);

    internal void Write(int offset, ReadOnlySpan<byte> bytes, TextMechanism owner)
    {
        bytes.CopyTo(_bytes.AsSpan(offset));
        _owners.AsSpan(offset, bytes.Length).Fill((byte)owner);
    }

    internal void MarkOpen(int offset, int length, TextMechanism owner) =>
        _owners.AsSpan(offset, length).Fill((byte)((byte)owner | Open));
}

/// <summary>
/// A working copy of a kernel's executable sections, at link addresses, which the mechanisms write to in the order of the kernel. Each
/// byte knows its last writer.
/// </summary>
/// <remarks>
/// Everything is checked: a range that is not wholly inside one section is neither read nor written. The file's own bytes are not changed.
/// </remarks>
internal sealed class TextImage
{
    private readonly TextSection[] _sections;
    private int _last;

    private TextImage(TextSection[] sections) => _sections = sections;

    /// <summary>The sections in order of address.</summary>
    public IReadOnlyList<TextSection> Sections => _sections;

    /// <summary>Copies the executable sections of a kernel.</summary>
    public static TextImage Of(ElfImage elf) => Of(elf, []);

    /// <summary>Copies the executable sections of a kernel, and code that it carries in its data.</summary>
    /// <param name="elf">The kernel's file.</param>
    /// <param name="vdsos">Images of the vDSO; they share no byte with each other nor with a section of code.</param>
    public static TextImage Of(ElfImage elf, IEnumerable<VdsoImage> vdsos) => new(
        [.. elf.Sections.Where(IsText).Select(s => new TextSection(s.Name, s.Address, elf.GetBytes(s)))
            .Concat(vdsos.Select(static v => new TextSection(v.Name, v.Address, v.Bytes) { IsPatchedLate = true }))
            .OrderBy(static s => s.Address.Value)]);

    /// <summary>
    /// Whether a section holds text: code that is not written to. The data of 7.2 is marked as executable too; the kernel does not map it
    /// so.
    /// </summary>
    public static bool IsText(ElfSection section) =>
        section is { IsAllocated: true, IsExecutable: true, HasFileContent: true, Size: > 0 }
        && (section.Flags & (ElfSectionAttributes.Write | ElfSectionAttributes.ThreadLocal)) == 0;

    /// <summary>The section that holds a range as a whole; <see langword="null"/> where none does.</summary>
    public TextSection? Find(VirtualAddress address, int length)
    {
        // Records come in runs of one section.
        if (_last < _sections.Length && _sections[_last].Contains(address, length))
        {
            return _sections[_last];
        }

        int low = 0;
        int high = _sections.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            if (_sections[middle].Contains(address, length))
            {
                _last = middle;
                return _sections[middle];
            }

            if (_sections[middle].Address > address)
            {
                high = middle - 1;
            }
            else
            {
                low = middle + 1;
            }
        }

        return null;
    }

    /// <summary>Whether an address is one of text.</summary>
    public bool Contains(VirtualAddress address) => Find(address, 1) is not null;

    /// <summary>The bytes at an address as predicted so far.</summary>
    /// <param name="address">The link address.</param>
    /// <param name="length">The number of bytes.</param>
    /// <param name="bytes">The bytes; a view, changed by later writes.</param>
    /// <returns>Whether one section holds all of them.</returns>
    public bool TryGet(VirtualAddress address, int length, out ReadOnlySpan<byte> bytes)
    {
        bytes = Find(address, length) is TextSection section
            ? section.Bytes.Slice((int)(address - section.Address), length) : default;
        return bytes.Length == length && length > 0;
    }

    /// <summary>Writes bytes.</summary>
    /// <param name="address">The link address.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="owner">Who writes them.</param>
    /// <returns>Whether one section holds all of them; nothing is written where not.</returns>
    public bool TryWrite(VirtualAddress address, ReadOnlySpan<byte> bytes, TextMechanism owner)
    {
        if (Find(address, bytes.Length) is not TextSection section)
        {
            return false;
        }

        section.Write((int)(address - section.Address), bytes, owner);
        return true;
    }

    /// <summary>Marks bytes that a mechanism may have written, where the state does not say with what. Their value stays.</summary>
    /// <param name="address">The link address.</param>
    /// <param name="length">The number of bytes.</param>
    /// <param name="owner">The mechanism.</param>
    /// <returns>Whether one section holds all of them.</returns>
    public bool TryMarkOpen(VirtualAddress address, int length, TextMechanism owner)
    {
        if (Find(address, length) is not TextSection section)
        {
            return false;
        }

        section.MarkOpen((int)(address - section.Address), length, owner);
        return true;
    }

    /// <summary>Whether the state leaves open what one of some bytes is; not where no section holds them.</summary>
    /// <param name="address">The link address.</param>
    /// <param name="length">The number of bytes.</param>
    public bool HasOpen(VirtualAddress address, int length) =>
        length > 0 && Find(address, length) is TextSection section && section.HasOpen((int)(address - section.Address), length);

    /// <summary>The mechanism that wrote the byte at an address last; none outside the text.</summary>
    public TextMechanism OwnerAt(VirtualAddress address) =>
        Find(address, 1) is TextSection section ? section.OwnerAt((int)(address - section.Address)) : TextMechanism.None;
}
