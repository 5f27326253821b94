using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace PvPatch.Plans;

/// <summary>The part of a segment where 16 bytes can be read and written: what lets a site be handled as one vector, whatever its length.</summary>
/// <param name="bytes">The segment's bytes.</param>
/// <param name="start">The run address of the first.</param>
internal readonly ref struct VectorWindow(Span<byte> bytes, ulong start)
{
    private readonly ref byte _first = ref MemoryMarshal.GetReference(bytes);
    private readonly ulong _start = start;
    private readonly ulong _count = (ulong)Math.Max(0, bytes.Length - (PlanEntry.MaxInPlace - 1));

    // An address below the window wraps to a great offset: one comparison says it all.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Holds(ulong address) => unchecked(address - _start) < _count;

    /// <summary>The byte at an address that the window <see cref="Holds"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref byte At(ulong address) => ref Unsafe.Add(ref _first, (nint)(address - _start));
}
