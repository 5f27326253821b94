using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using PvPatch.Linux.Eras;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Orders of ops tables of kernels that carry no type information, one configuration each; and the reader of a user's own. Options of a
/// kernel's build shift slots, so a layout from here is used only where the image agrees with it.
/// </summary>
public static class KernelLayouts
{
    private const string Prefix = "PvPatch.Linux.Layouts.";

    // Oldest first. The names are those of the files in the folder Layouts, which hold the lists.
    private static readonly (string Name, SlotPlacement Placement)[] s_names =
    [
        ("2.6.20-i386", SlotPlacement.WordByWord),
        ("2.6.22-i386-pae", SlotPlacement.OneTable),
        ("2.6.24-i386-pae", SlotPlacement.TableByTable),
        ("2.6.25-x86-64", SlotPlacement.TableByTable),
        ("2.6.32-x86-64", SlotPlacement.TableByTable),
        ("3.6-x86-64", SlotPlacement.TableByTable),
        ("4.8-x86-64", SlotPlacement.TableByTable),
        ("4.20-x86-64-4-levels", SlotPlacement.OneTable),
        ("4.20-x86-64", SlotPlacement.OneTable),
        ("5.10-x86-64", SlotPlacement.OneTable),
    ];

    private static readonly Lazy<IReadOnlyList<OpsLayout>> s_all = new(static () => [.. s_names.Select(static n => LoadKnown(n.Name))]);

    /// <summary>All known layouts, oldest first.</summary>
    public static IReadOnlyList<OpsLayout> All => s_all.Value;

    /// <summary>Finds a layout by name.</summary>
    /// <param name="name">The name of one of <see cref="All"/>.</param>
    /// <param name="layout">The layout.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryGet(string name, [NotNullWhen(true)] out OpsLayout? layout)
    {
        layout = All.FirstOrDefault(l => l.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        return layout is not null;
    }

    /// <summary>
    /// Reads a layout from text: <c>bits 64</c>, then one line a slot in order (<c>irq.save_fl*</c>; the star marks callee-save slots).
    /// </summary>
    /// <param name="utf8">The text.</param>
    /// <param name="name">A name for reports.</param>
    /// <param name="layout">The layout.</param>
    /// <param name="error">
    /// PV6160 for a line that is no slot, PV6161 for too long a text or too many slots, PV6162 where something is missing, PV2003 for a
    /// name that occurs twice.
    /// </param>
    /// <returns>Whether the text was read.</returns>
    public static bool TryRead(
        ReadOnlySpan<byte> utf8, string name, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        return KernelLayoutText.TryRead(utf8, name, out layout, out error);
    }

    /// <summary>Finds a layout by a user's text: the name of one of <see cref="All"/>, else the path of a file with a layout.</summary>
    /// <param name="nameOrPath">The name or path.</param>
    /// <param name="layout">The layout.</param>
    /// <param name="error">PV6163 where it is neither; else as <see cref="TryRead"/>, with the file as the source.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryLoad(
        string nameOrPath, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentException.ThrowIfNullOrEmpty(nameOrPath);
        if (TryGet(nameOrPath, out layout))
        {
            error = null;
            return true;
        }

        try
        {
            // One byte more than a layout may have is enough to tell that it is too long, whatever the file is.
            using FileStream file = File.OpenRead(nameOrPath);
            byte[] text = new byte[KernelLayoutText.MaxLength + 1];
            int length = file.ReadAtLeast(text, text.Length, throwOnEndOfStream: false);
            bool read = TryRead(text.AsSpan(0, length),
                Path.GetFileNameWithoutExtension(nameOrPath) is { Length: > 0 } name ? name : nameOrPath, out layout, out error);
            error = error is null ? null : error with { Source = error.Source is string line ? $"{nameOrPath}, {line}" : nameOrPath };
            return read;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.LayoutUnreadable, "there is no such layout, and no file with one that can be read") with
            {
                Source = nameOrPath,
                Found = e.Message,
                Expected = $"{string.Join(", ", s_names.Select(static n => n.Name))}, or a file",
            };
            return false;
        }
    }

    /// <summary>Reads a layout from text; see <see cref="TryRead"/>.</summary>
    /// <param name="utf8">The text.</param>
    /// <param name="name">A name for reports.</param>
    /// <returns>The layout.</returns>
    /// <exception cref="PatchException">The text is no layout.</exception>
    public static OpsLayout Read(ReadOnlySpan<byte> utf8, string name) =>
        TryRead(utf8, name, out OpsLayout? layout, out PatchDiagnostic? error) ? layout : throw new PatchException(error);

    /// <summary>Finds a layout by name, else reads it from a file; see <see cref="TryLoad"/>.</summary>
    /// <param name="nameOrPath">The name or path.</param>
    /// <returns>The layout.</returns>
    /// <exception cref="PatchException">There is neither such a name nor a file with a layout.</exception>
    public static OpsLayout Load(string nameOrPath) =>
        TryLoad(nameOrPath, out OpsLayout? layout, out PatchDiagnostic? error) ? layout : throw new PatchException(error);

    /// <summary>The known layouts of kernels of a bitness and an arrangement of slots.</summary>
    internal static IEnumerable<OpsLayout> For(int bitness, SlotPlacement placement) =>
        All.Where((l, i) => BitnessOf(l) == bitness && s_names[i].Placement == placement);

    /// <summary>The bitness, 32 or 64, that the conventions of the slots imply; 0 where they imply none.</summary>
    internal static int BitnessOf(OpsLayout layout) =>
        layout.Slots.Any(static s => s.Convention == CallConvention.I386RegParm) ? 32
        : layout.Slots.Any(static s => s.Convention == CallConvention.KernelSysV || s.Convention == CallConvention.SysV) ? 64
        : 0;

    private static OpsLayout LoadKnown(string name)
    {
        using Stream text = Assembly.GetExecutingAssembly().GetManifestResourceStream(Prefix + name)
            ?? throw new InvalidOperationException($"the layout {name} is not in the assembly");
        byte[] bytes = new byte[text.Length];
        text.ReadExactly(bytes);
        return KernelLayoutText.TryRead(bytes, name, out OpsLayout? layout, out PatchDiagnostic? error)
            ? layout : throw new PatchException(error);
    }
}
