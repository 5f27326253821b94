using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Live;

/// <summary>The arenas of the process that are in use, by address: a site can be linked to a block of any of them. Keeps none of them alive.</summary>
internal static class ArenaDirectory
{
    private static readonly Lock s_lock = new();
    private static volatile WeakReference<CodeArena>[] s_arenas = []; // never changed, but replaced

    public static void Add(CodeArena arena)
    {
        lock (s_lock)
        {
            s_arenas = [.. s_arenas.Where(static a => a.TryGetTarget(out _)), new WeakReference<CodeArena>(arena)];
        }
    }

    public static void Remove(CodeArena arena)
    {
        lock (s_lock)
        {
            s_arenas = [.. s_arenas.Where(a => a.TryGetTarget(out CodeArena? other) && other != arena)];
        }
    }

    /// <summary>The block at an address, whichever arena it is in. Takes no lock.</summary>
    public static bool TryFindBlock(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block)
    {
        foreach (WeakReference<CodeArena> reference in s_arenas)
        {
            if (reference.TryGetTarget(out CodeArena? arena) && arena.Registry.TryFind(address, out block))
            {
                return true;
            }
        }

        block = null;
        return false;
    }

    /// <summary>The sum of a number over all arenas.</summary>
    public static long Sum(Func<CodeArena, long> of) => s_arenas.Sum(a => a.TryGetTarget(out CodeArena? arena) ? of(arena) : 0);
}
