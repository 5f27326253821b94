using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// The kernel's description of itself for readers of its dump: lines <c>KEY=VALUE</c> of the note <c>VMCOREINFO</c>
/// (Documentation/admin-guide/kdump/vmcoreinfo.rst). Untrusted; to be checked against the memory.
/// </summary>
internal sealed class VmCoreInfo
{
    // The kernel's own note is one page at most.
    internal const int MaxLength = 1 << 20;
    private const int MaxLines = 1 << 14;

    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);

    internal VmCoreInfo(ReadOnlySpan<byte> text)
    {
        foreach (Range range in text.Split((byte)'\n'))
        {
            ReadOnlySpan<byte> line = text[range].TrimEnd((byte)0);
            int equals = line.IndexOf((byte)'=');
            if (equals > 0 && _values.Count < MaxLines)
            {
                _values.TryAdd(
                    System.Text.Encoding.UTF8.GetString(line[..equals]), System.Text.Encoding.UTF8.GetString(line[(equals + 1)..]));
            }
        }
    }

    /// <summary>The kernel's release, <c>uname -r</c>; <see langword="null"/> without it.</summary>
    public string? Release => TryGet("OSRELEASE", out string? value) ? value : null;

    /// <summary>The KASLR slide of the kernel's virtual addresses in bytes (<c>KERNELOFFSET</c>, hexadecimal).</summary>
    public long? KernelOffset => TryGet("KERNELOFFSET", out string? text)
        && long.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out long value) ? value : null;

    /// <summary>
    /// The physical base (<c>NUMBER(phys_base)</c>, decimal): physical = virtual - 0xffffffff80000000 + this, for addresses of the image.
    /// </summary>
    public long? PhysicalBase => TryGet("NUMBER(phys_base)", out string? text)
        && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) ? value : null;

    /// <summary>The value of a key.</summary>
    /// <param name="key">The key, such as <c>OSRELEASE</c>.</param>
    /// <param name="value">The text behind the equals sign.</param>
    /// <returns>Whether the note has the key.</returns>
    public bool TryGet(string key, [NotNullWhen(true)] out string? value) => _values.TryGetValue(key, out value);
}
