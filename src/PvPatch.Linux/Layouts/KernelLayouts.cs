using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Orders of ops tables, by releases and configurations; and the reader of a user's own. Options of a kernel's build shift slots, so a
/// layout from here is used for a kernel without type information only where the image proves it.
/// </summary>
public static class KernelLayouts
{
    private const string Prefix = "PvPatch.Linux.Layouts.";
    private const string OrdersName = "orders";

    // Orders that are none of orders.txt's: kernels before struct paravirt_patch_template, and those of vendors. The names are those of the
    // files in the folder Layouts, which hold the lists.
    private static readonly (string Configuration, KernelRelease Release, SlotPlacement Placement)[] s_lists =
    [
        ("i386", new(2, 6, 20), SlotPlacement.WordByWord),
        ("i386-pae", new(2, 6, 22), SlotPlacement.OneTable),
        ("x86-64-el6", new(2, 6, 32), SlotPlacement.TableByTable),
        ("x86-64-el7", new(3, 10, 0), SlotPlacement.TableByTable),
    ];

    private static readonly Lazy<IReadOnlyList<KnownOrder>> s_orders = new(ReadOrders);
    private static readonly Lazy<IReadOnlyList<OpsLayout>> s_all = new(static () => [.. Orders.Select(static o => o.Layout)]);

    /// <summary>All known layouts, oldest first.</summary>
    public static IReadOnlyList<OpsLayout> All => s_all.Value;

    /// <summary>The orders that <see cref="All"/> are made of, oldest first; a layout is made when it is asked for.</summary>
    internal static IReadOnlyList<KnownOrder> Orders => s_orders.Value;

    /// <summary>Finds a layout by name, or by a release and a configuration.</summary>
    /// <param name="name">
    /// The name of one of <see cref="All"/>, as <c>4.20-5.2-x86-64-5level</c>, or a release among those with a configuration, as
    /// <c>5.1-x86-64-5level</c>.
    /// </param>
    /// <param name="layout">The layout.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryGet(string name, [NotNullWhen(true)] out OpsLayout? layout)
    {
        ArgumentNullException.ThrowIfNull(name);
        KnownOrder? order = Orders.FirstOrDefault(o => o.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        int dash = name.IndexOf('-', StringComparison.Ordinal);
        if (order is null && dash > 0 && KernelRelease.TryParse(name.AsSpan(0, dash), out KernelRelease release))
        {
            order = Find(release, name[(dash + 1)..]);
        }

        layout = order?.Layout;
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

    /// <summary>Finds a layout by a user's text: a name as of <see cref="TryGet"/>, else the path of a file with a layout.</summary>
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
                Expected = "a release and a configuration, as 2.6.24-i386-pae or 5.4-x86-64-5level (docs/eras.md), or a file",
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

    /// <summary>The known orders of kernels of a bitness and an arrangement of slots.</summary>
    internal static IEnumerable<KnownOrder> For(int bitness, SlotPlacement placement) =>
        Orders.Where(o => o.Bitness == bitness && o.Placement == placement);

    /// <summary>
    /// Index of the first slot of a lock table of its own, where a layout has lock slots last and the kernel has such a table; else the
    /// number of slots.
    /// </summary>
    internal static int LockTableOf(OpsLayout layout, KernelSymbols? symbols) =>
        layout.Tables.Count > 0 && layout.Tables[^1] is { Name: "lock", Slots.Count: > 0 } locks && symbols is not null
        && symbols.TryGetAddress(SlotWordLocator.LockTable, out _) ? locks.Slots[0].Index : layout.Count;

    /// <summary>The bitness, 32 or 64, that the conventions of the slots imply; 0 where they imply none.</summary>
    internal static int BitnessOf(OpsLayout layout) =>
        layout.Slots.Any(static s => s.Convention == CallConvention.I386RegParm) ? 32
        : layout.Slots.Any(static s => s.Convention == CallConvention.KernelSysV || s.Convention == CallConvention.SysV) ? 64
        : 0;

    // What lies between two orders of a configuration is of neither, also within a stable series.
    private static KnownOrder? Find(KernelRelease release, string configuration)
    {
        KnownOrder[] orders = [.. Orders.Where(o => o.Configuration.Equals(configuration, StringComparison.OrdinalIgnoreCase))];
        KnownOrder? order = orders.LastOrDefault(o => o.First <= release);
        bool isBetween = order is not null && release > order.Last && orders.Any(o => o.First > release && o.First.IsOfSeries(release));
        return order is not null && order.Covers(release) && !isBetween ? order : null;
    }

    private static IReadOnlyList<KnownOrder> ReadOrders() =>
    [
        .. s_lists.Select(static l => new KnownOrder(l.Configuration, l.Release, l.Release, l.Placement, LoadKnown))
            .Concat(SlotOrders.Read(System.Text.Encoding.UTF8.GetString(LoadText(OrdersName)))).OrderBy(static o => o.First),
    ];

    private static OpsLayout LoadKnown(string name) =>
        KernelLayoutText.TryRead(LoadText(name), name, out OpsLayout? layout, out PatchDiagnostic? error)
            ? layout : throw new PatchException(error);

    private static byte[] LoadText(string name)
    {
        using Stream text = Assembly.GetExecutingAssembly().GetManifestResourceStream(Prefix + name)
            ?? throw new InvalidOperationException($"the layout {name} is not in the assembly");
        byte[] bytes = new byte[text.Length];
        text.ReadExactly(bytes);
        return bytes;
    }
}
