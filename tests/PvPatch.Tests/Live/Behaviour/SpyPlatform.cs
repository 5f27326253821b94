using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// The system's own platform, which sees every barrier, whoever runs it: managed code or the guard routine. At each it keeps an image of
/// the arena's memory; any of them can be dropped, made to fail, or made the moment at which something else happens.
/// </summary>
internal sealed unsafe class SpyPlatform : LivePlatform, IDisposable
{
    private readonly LivePlatform _real = Current;
    private readonly GCHandle _self;
    private readonly List<(long Offset, long Length)> _committed = [];
    private CodeMapping? _mapping;

    public SpyPlatform() => _self = GCHandle.Alloc(this);

    /// <summary>Barriers since <see cref="Restart"/>, dropped ones too.</summary>
    public int Barriers { get; private set; }

    /// <summary>The memory at each barrier since <see cref="Restart"/>, and before them as it was then.</summary>
    public List<MemoryImage> Images { get; } = [];

    /// <summary>The barrier that is not run though it is said to be: its number from 0; -1 for none.</summary>
    public int Dropped { get; set; } = -1;

    /// <summary>The barrier that fails; -1 for none.</summary>
    public int Failing { get; set; } = -1;

    /// <summary>What happens at a barrier, before it is run.</summary>
    public Action<int>? At { get; set; }

    public override int Granularity => _real.Granularity;

    /// <summary>The memory as it is now.</summary>
    public MemoryImage Now() => new([.. _committed.Select(
        c => (_mapping!.Run.Value + (ulong)c.Offset, new Span<byte>(_mapping.Write + c.Offset, (int)c.Length).ToArray()))]);

    public void Restart()
    {
        Barriers = 0;
        Images.Clear();
        Images.Add(Now());
    }

    public override bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions options, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        bool done = _real.TryReserve(near, size, options, out mapping, out error);
        _mapping = mapping;
        return done;
    }

    public override bool TryCommit(CodeMapping mapping, long offset, long length, bool executable, out PatchDiagnostic? error)
    {
        bool done = _real.TryCommit(mapping, offset, length, executable, out error);
        if (done)
        {
            _committed.Add((offset, length));
        }

        return done;
    }

    public override BarrierKind PrepareBarrier() => _real.PrepareBarrier();

    public override bool TryBarrier(BarrierKind kind) => Run() && _real.TryBarrier(kind);

    public override bool TryWriteBarrier(Assembler assembler, BarrierKind kind)
    {
        // Called as any function is: the stack is aligned, and what a function may destroy may be destroyed.
        assembler.mov(rdi, (ulong)GCHandle.ToIntPtr(_self));
        assembler.mov(rax, (ulong)(nint)(delegate* unmanaged<nint, int>)&RunNative);
        assembler.jmp(rax);
        return true;
    }

    public override Predicate<VirtualAddress>? ExecutableTest() => _real.ExecutableTest();

    public void Dispose() => _self.Free();

    [UnmanagedCallersOnly]
    private static int RunNative(nint self)
    {
        var platform = (SpyPlatform)GCHandle.FromIntPtr(self).Target!;
        return platform.Run() && platform._real.TryBarrier(platform._real.PrepareBarrier()) ? 0 : -12;
    }

    [MethodImpl(MethodImplOptions.Synchronized)]
    private bool Run()
    {
        if (_mapping is null || Images.Count == 0)
        {
            return true; // not started yet
        }

        int number = Barriers++;
        At?.Invoke(number);
        if (number == Failing)
        {
            return false;
        }

        if (number != Dropped)
        {
            Images.Add(Now());
        }

        return true;
    }
}

/// <summary>An arena's memory at one moment.</summary>
internal sealed class MemoryImage(List<(ulong Start, byte[] Bytes)> parts)
{
    /// <summary>Bytes of it; zeros where nothing was asked for from the system yet.</summary>
    public ReadOnlySpan<byte> At(ulong address, int length)
    {
        foreach ((ulong start, byte[] bytes) in parts)
        {
            if (address >= start && address + (ulong)length <= start + (ulong)bytes.Length)
            {
                return bytes.AsSpan((int)(address - start), length);
            }
        }

        return new byte[length];
    }

    public bool Contains(ulong address) => parts.Exists(p => address >= p.Start && address < p.Start + (ulong)p.Bytes.Length);

    /// <summary>The first address at which two differ; 0 where they are the same.</summary>
    public ulong FirstDifference(MemoryImage other)
    {
        foreach ((ulong start, byte[] bytes) in parts)
        {
            int same = bytes.AsSpan().CommonPrefixLength(other.At(start, bytes.Length));
            if (same < bytes.Length)
            {
                return start + (ulong)same;
            }
        }

        return 0;
    }
}
