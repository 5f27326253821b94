using System.IO.MemoryMappedFiles;
using RiscV.Isa;

namespace RiscV.Host;

/// <summary>
/// The guest's address space: a window of 4 GiB in the host's, of which RAM is a part. Only RAM is the guest's to use, but the whole window
/// is mapped (pages appear when touched): an access that is not checked, by an address cut to 32 bits, can't reach anything but the guest's
/// own memory.
/// </summary>
internal sealed unsafe class GuestMemory : IDisposable
{
    private const long WindowSize = 1L << 32;
    private const int Slack = 1 << 16; // eight bytes at the last address end behind the window

    private readonly MemoryMappedFile _file;
    private readonly MemoryMappedViewAccessor _view;
    private readonly byte* _window;

    public GuestMemory(ulong ramStart, ulong ramSize)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ramStart, (ulong)WindowSize);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ramSize, WindowSize - ramStart);
        ArgumentOutOfRangeException.ThrowIfLessThan(ramSize, 4096UL);
        RamStart = ramStart;
        RamSize = ramSize;
        _file = MemoryMappedFile.CreateNew(null, WindowSize + Slack, MemoryMappedFileAccess.ReadWrite,
            MemoryMappedFileOptions.DelayAllocatePages, HandleInheritability.None);
        _view = _file.CreateViewAccessor();
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref _window);
    }

    /// <summary>Host address of guest address 0.</summary>
    public byte* Window => _window;

    public ulong RamStart { get; }

    public ulong RamSize { get; }

    /// <summary>RAM from an address on, if that much of it lies there.</summary>
    public bool TryGetSpan(ulong address, ulong length, out Span<byte> span)
    {
        bool inside = address - RamStart <= RamSize && length <= RamSize - (address - RamStart) && length <= int.MaxValue;
        span = inside ? new Span<byte>(_window + address, (int)length) : default;
        return inside;
    }

    /// <summary>All of RAM.</summary>
    public Span<byte> Ram => new(_window + RamStart, (int)RamSize);

    /// <summary>Does a load or store without checking anything; what generated code does where the operation is inlined.</summary>
    public static ulong Access(byte* window, Op op, ulong address, ulong value)
    {
        byte* at = window + (uint)address;
        switch (op)
        {
            case Op.Lb:
                return (ulong)(sbyte)*at;
            case Op.Lh:
                return (ulong)*(short*)at;
            case Op.Lw:
                return (ulong)*(int*)at;
            case Op.Ld:
                return *(ulong*)at;
            case Op.Lbu:
                return *at;
            case Op.Lhu:
                return *(ushort*)at;
            case Op.Lwu:
                return *(uint*)at;
            case Op.Sb:
                *at = (byte)value;
                return 0;
            case Op.Sh:
                *(ushort*)at = (ushort)value;
                return 0;
            case Op.Sw:
                *(uint*)at = (uint)value;
                return 0;
            case Op.Sd:
                *(ulong*)at = value;
                return 0;
            default:
                throw new ArgumentOutOfRangeException(nameof(op));
        }
    }

    /// <summary>Bytes a load or store moves.</summary>
    public static int Width(Op op) => op switch
    {
        Op.Lb or Op.Lbu or Op.Sb => 1,
        Op.Lh or Op.Lhu or Op.Sh => 2,
        Op.Lw or Op.Lwu or Op.Sw => 4,
        _ => 8,
    };

    public void Dispose()
    {
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _file.Dispose();
    }
}
