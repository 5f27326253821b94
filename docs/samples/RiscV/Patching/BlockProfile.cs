using System.Runtime.InteropServices;

namespace RiscV.Patching;

/// <summary>How often each block was entered while the backend was <c>profiled</c>.</summary>
internal sealed class BlockProfile
{
    private readonly Dictionary<ulong, long> _counts = [];

    public IReadOnlyDictionary<ulong, long> Counts => _counts;

    public void Enter(ulong pc) => CollectionsMarshal.GetValueRefOrAddDefault(_counts, pc, out _)++;
}
