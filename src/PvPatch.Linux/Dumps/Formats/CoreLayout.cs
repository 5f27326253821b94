using System.Buffers;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>The map that a core's program headers give: virtual and physical addresses of the file's bytes.</summary>
/// <remarks>
/// QEMU's dump-guest-memory gives both addresses with paging, and without it the physical one twice (older versions: 0 as the virtual one);
/// makedumpfile and kdump give both; /proc/kcore gives virtual ones, and physical ones since 4.19 (-1 where there is none, before 0
/// everywhere). Memory beyond the bytes in the file is what was left out of the dump, not zeros.
/// </remarks>
internal sealed class CoreLayout
{
    private const int MaxNotes = 16;
    private readonly List<Load> _loads = [];
    private readonly MemorySource _source;
    private readonly CoreHeader _header;
    private readonly List<PatchDiagnostic> _warnings;
    private int _cut;
    private int _wrapped;

    private readonly record struct Load(ulong Virtual, ulong Physical, long FileOffset, long Length);

    private CoreLayout(MemorySource source, CoreHeader header, List<PatchDiagnostic> warnings)
    {
        _source = source;
        _header = header;
        _warnings = warnings;
    }

    public MemorySpace Virtual { get; private set; } = null!;

    public MemorySpace Physical { get; private set; } = null!;

    /// <summary>Ranges of the file that hold notes.</summary>
    public List<MemorySegment> Notes { get; } = [];

    public static CoreLayout Read(MemorySource source, CoreHeader header, List<PatchDiagnostic> warnings)
    {
        var layout = new CoreLayout(source, header, warnings);
        layout.ReadHeaders();
        layout.MakeSpaces();
        return layout;
    }

    private void ReadHeaders()
    {
        int entrySize = _header.SegmentEntrySize;
        int perBuffer = 1024;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(perBuffer * entrySize);
        for (int first = 0; first < _header.SegmentCount; first += perBuffer)
        {
            int count = Math.Min(perBuffer, _header.SegmentCount - first);
            Span<byte> part = buffer.AsSpan(0, count * entrySize);
            if (!_source.TryRead(_header.SegmentTableOffset + (long)first * entrySize, part))
            {
                _cut += _header.SegmentCount - first;
                break;
            }

            for (int i = 0; i < count; i++)
            {
                ReadHeader(new ElfFields(part.Slice(i * entrySize, entrySize), _header.Is64));
            }
        }

        ArrayPool<byte>.Shared.Return(buffer);
    }

    private void ReadHeader(ElfFields fields)
    {
        var type = (ElfSegmentType)fields.Word(0, 0);
        ulong offset = fields.Native(4, 8);
        ulong size = fields.Native(16, 32);
        if (type is not (ElfSegmentType.Load or ElfSegmentType.Note) || size == 0)
        {
            return;
        }

        ulong room = offset < (ulong)_source.Length ? (ulong)_source.Length - offset : 0;
        _cut += size > room ? 1 : 0;
        long length = (long)Math.Min(size, room);
        if (length == 0)
        {
            return;
        }

        if (type == ElfSegmentType.Load)
        {
            _loads.Add(new Load(Address(fields.Native(8, 16)), Address(fields.Native(12, 24)), (long)offset, length));
        }
        else if (Notes.Count < MaxNotes)
        {
            Notes.Add(new MemorySegment(0, (long)offset, length));
        }
    }

    // -1 stays -1 in both classes. In 64-bit files of 32-bit machines virtual addresses may be sign-extended.
    private ulong Address(ulong value) =>
        !_header.Is64 && value == uint.MaxValue ? ulong.MaxValue
        : _header.MachineBitness == 32 && value >= 0xffffffff00000000 && value != ulong.MaxValue ? value & uint.MaxValue
        : value;

    private void MakeSpaces()
    {
        // Where every physical address is 0 the file knows none.
        bool knowsPhysical = _loads.Exists(static l => l.Physical is not (0 or ulong.MaxValue));
        var virtuals = new List<MemorySegment>();
        var physicals = new List<MemorySegment>();
        foreach (Load load in _loads)
        {
            bool isVirtual = IsKernelVirtual(load);
            if (isVirtual)
            {
                virtuals.Add(Clip(load.Virtual, load));
            }

            if (load.Physical != ulong.MaxValue && (knowsPhysical || !isVirtual))
            {
                physicals.Add(Clip(load.Physical, load));
            }
        }

        Virtual = MemorySpace.Create(_source, virtuals);
        Physical = MemorySpace.Create(_source, physicals);
        Warn();
    }

    // A virtual address equal to the physical one is none; in the low half of a 64-bit machine it is a process's.
    private bool IsKernelVirtual(Load load) =>
        load.Virtual != 0 && load.Virtual != load.Physical && (_header.MachineBitness == 32 || load.Virtual >> 63 == 1);

    private MemorySegment Clip(ulong address, Load load)
    {
        ulong room = ulong.MaxValue - address;
        bool fits = (ulong)load.Length - 1 <= room;
        _wrapped += fits ? 0 : 1;
        return new MemorySegment(address, load.FileOffset, fits ? load.Length : (long)room + 1);
    }

    private void Warn()
    {
        if (_cut > 0)
        {
            _warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreTruncated, "the core ends before the memory it announces") with
            {
                FileOffset = _source.Length,
                Found = $"{_cut} of {_header.SegmentCount} segments that are cut or missing",
                Expected = "all of them within the file",
                Help = "What is missing counts as unreadable; take the dump again for the rest.",
            });
        }

        // Dumps through page tables name a physical page once for each mapping, so only virtual addresses must be of one segment.
        if (Virtual.Overlaps > 0 || _wrapped > 0)
        {
            _warnings.Add(PatchDiagnostic.Warning(
                KernelDiagnosticCodes.CoreBadSegments, "segments of the core share addresses or leave the address space") with
            {
                Found = $"{Virtual.Overlaps} that overlap, {_wrapped} that run over the end",
                Help =
                    "Of two segments with one address the one that starts first counts. Page tables of several processors may differ "
                    + "there; else the dump is damaged, or made up.",
            });
        }
    }
}
