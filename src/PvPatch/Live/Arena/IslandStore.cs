using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Islands: for a site, a body of several instructions out of line, and behind it a jump to the site's end. Immutable once written, so a
/// thread may be in one for ever; kept as long as the site's block, so switching to and fro among the same backends makes each island once.
/// </summary>
/// <remarks>
/// A site of six bytes before and after its body of two instructions is put out of line:
/// <code>
/// site      ff 15 dd dd dd dd     call [rip+slot]
/// then      2e e9 dd dd dd dd     cs jmp island
///
/// island    8d 40 01              lea eax,[rax+1]         at a multiple of 16, in a page of such pieces
///           8d 40 02              lea eax,[rax+2]
///           e9 dd dd dd dd        jmp to the site's end
/// </code>
/// </remarks>
internal sealed class IslandStore(ArenaMemory memory, StubAllocator stubs)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, CodeContent> _contents = [];
    private readonly Dictionary<ulong, VirtualAddress> _addresses = [];
    private readonly Dictionary<uint, List<CodeContent>> _bySite = [];

    /// <summary>How many there are.</summary>
    public int Count => _addresses.Count;

    /// <summary>The one object for a body's content.</summary>
    public CodeContent Intern(AssembledBody body)
    {
        lock (_lock)
        {
            string key = CodeContent.KeyOf(body);
            if (!_contents.TryGetValue(key, out CodeContent? content))
            {
                content = new CodeContent(body, _contents.Count);
                _contents.Add(key, content);
            }

            return content;
        }
    }

    /// <summary>Keeps others out while a batch asks for many islands, until <see cref="Release"/>.</summary>
    public void Hold() => _lock.Enter();

    public void Release() => _lock.Exit();

    /// <summary>The site's island with a content, where there is one. To be called while the store is held.</summary>
    public bool TryFind(uint site, CodeContent content, out VirtualAddress address) =>
        _addresses.TryGetValue(Key(site, content), out address);

    /// <summary>Writes an island. To be called while the store is held.</summary>
    /// <param name="site">The site, from the arena's start.</param>
    /// <param name="end">Where the island goes on: the site's end.</param>
    /// <param name="content">What it does.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="error">No room; nothing where something it refers to is too far away.</param>
    public bool TryAdd(uint site, VirtualAddress end, CodeContent content, out VirtualAddress address, out PatchDiagnostic? error)
    {
        int length = content.MaxLength;
        if (!stubs.TryTake(length, out address, out error, site))
        {
            return false;
        }

        if (!TryWrite(content, address, end))
        {
            stubs.Give(address, length);
            return false;
        }

        if (!_bySite.TryGetValue(site, out List<CodeContent>? contents))
        {
            contents = [];
            _bySite.Add(site, contents);
        }

        contents.Add(content);
        _addresses.Add(Key(site, content), address);
        return true;
    }

    /// <summary>The site of the island at an address. Takes no lock.</summary>
    public bool TryFindSite(VirtualAddress address, out VirtualAddress site)
    {
        bool found = stubs.TryFindOwner(address, out uint offset);
        site = found ? memory.Start + offset : default;
        return found;
    }

    /// <summary>The island an address lies in, for reports.</summary>
    public (VirtualAddress Site, VirtualAddress Address)? Find(VirtualAddress address)
    {
        lock (_lock)
        {
            if (stubs.TryFindOwner(address, out uint site))
            {
                foreach (CodeContent content in _bySite[site])
                {
                    VirtualAddress start = _addresses[Key(site, content)];
                    if (address >= start && address.Value - start.Value < (ulong)content.MaxLength)
                    {
                        return (memory.Start + site, start);
                    }
                }
            }

            return null;
        }
    }

    /// <summary>Frees the islands of a block nobody can be inside any more.</summary>
    public long Free(CodeBlock block)
    {
        lock (_lock)
        {
            long freed = 0;
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (!_bySite.Remove(record.Offset, out List<CodeContent>? contents))
                {
                    continue;
                }

                foreach (CodeContent content in contents)
                {
                    _addresses.Remove(Key(record.Offset, content), out VirtualAddress address);
                    stubs.Give(address, content.MaxLength);
                    freed += content.MaxLength;
                }
            }

            return freed;
        }
    }

    private static ulong Key(uint site, CodeContent content) => (ulong)site << 32 | (uint)content.Number;

    private bool TryWrite(CodeContent content, VirtualAddress address, VirtualAddress end)
    {
        Span<byte> bytes = memory.Span(address, content.MaxLength);
        if (!content.TryWrite(address, bytes))
        {
            return false;
        }

        int length = content.Body.Bytes.Length;
        if (!content.Body.EndsControlFlow)
        {
            bytes[length] = 0xe9; // jmp rel32, in reach: island and site are in one arena
            BinaryPrimitives.WriteInt32LittleEndian(bytes[(length + 1)..], checked((int)(end - (address + length + 5))));
        }

        return true;
    }
}

/// <summary>
/// A body as it is put out of line: its bytes and what they refer to. Equal contents are one object in a store, so that a host which makes
/// the same backend again and again does not fill its arena with the same code.
/// </summary>
internal sealed class CodeContent(AssembledBody body, int number = 0)
{
    /// <summary>e9 rel32, or c3.</summary>
    public const int LongestEnd = 5;

    public AssembledBody Body { get; } = body;

    /// <summary>Its number in the store.</summary>
    public int Number { get; } = number;

    /// <summary>The longest it gets, with the way back behind it.</summary>
    public int MaxLength => Body.Bytes.Length + LongestEnd;

    /// <summary>What makes two contents the same.</summary>
    public static string KeyOf(AssembledBody body)
    {
        var key = new StringBuilder(Convert.ToHexString(body.Bytes.Span));
        foreach (CodeFixup fixup in body.Fixups)
        {
            key.Append(CultureInfo.InvariantCulture, $" {fixup.Offset}:{fixup.Target}");
        }

        return key.ToString();
    }

    /// <summary>Writes the body for an address.</summary>
    /// <returns>Whether everything it refers to is in reach.</returns>
    public bool TryWrite(VirtualAddress address, Span<byte> destination)
    {
        Body.Bytes.Span.CopyTo(destination);
        return Displacement.TryFill(destination, Body.FixupSpan, address, Body.Bitness);
    }
}
