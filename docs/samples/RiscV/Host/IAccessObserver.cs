using RiscV.Isa;

namespace RiscV.Host;

/// <summary>
/// Told of what the guest does: by the interpreter where one is given, by generated code while its backend is <c>traced</c>.
/// </summary>
internal interface IAccessObserver
{
    /// <summary>A load or store, before it is done.</summary>
    public void Access(ulong pc, Op op, ulong address);
}

/// <summary>Counts accesses by operation and keeps a checksum over all of them in their order.</summary>
internal sealed class AccessCounter : IAccessObserver
{
    private readonly long[] _counts = new long[256];

    public ulong Checksum { get; private set; } = 14695981039346656037; // FNV-1a, by words instead of bytes

    public long Total { get; private set; }

    public long this[Op op] => _counts[(int)op];

    public void Access(ulong pc, Op op, ulong address)
    {
        _counts[(int)op]++;
        Total++;
        Checksum = (((Checksum ^ pc) * 1099511628211 ^ (ulong)op) * 1099511628211 ^ address) * 1099511628211;
    }
}
