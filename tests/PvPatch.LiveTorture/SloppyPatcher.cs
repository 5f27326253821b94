using PvPatch.Live;
using PvPatch.Machine;

namespace PvPatch.LiveTorture;

/// <summary>
/// Patchers that each leave out one thing the library does. The torture must see every one of them fail, or it proves nothing.
/// </summary>
internal sealed unsafe class SloppyPatcher
{
    private readonly Protocol _protocol;
    private readonly List<Site> _sites = [];
    private bool _second;

    public SloppyPatcher(Protocol protocol, TortureCode code, LivePatcher patcher)
    {
        _protocol = protocol;
        var alone = new SwitchOptions { Mode = SwitchMode.Quiescent };
        patcher.Switch(code.Inlined, options: alone);
        LiveSite[] sites = [.. code.Blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];
        byte[][] inlined = [.. sites.Select(static s => s.ToArray())];
        patcher.Switch(code.Direct, options: alone);
        byte[][] direct = [.. sites.Select(static s => s.ToArray())];
        for (int i = 0; i < sites.Length; i++)
        {
            byte* at = code.Arena.Memory.WriteView(sites[i].Address);
            if (protocol == Protocol.CallNotAtEnd)
            {
                direct[i] = Shifted(direct[i]);
            }

            _sites.Add(new Site((nint)at, SiteBytes.From(direct[i]), SiteBytes.From(inlined[i])));
        }
    }

    /// <summary>Flips all sites once.</summary>
    public long Flip()
    {
        _second = !_second;
        foreach (Site site in _sites)
        {
            (SiteBytes old, SiteBytes bytes) = _second ? (site.First, site.Second) : (site.Second, site.First);
            byte* at = (byte*)site.At;
            switch (_protocol)
            {
                case Protocol.ByteCopy:
                    for (int i = 0; i < 6; i++)
                    {
                        Volatile.Write(ref at[i], (byte)(bytes.Low >> i * 8));
                    }

                    break;
                case Protocol.CallNotAtEnd:
                    // The store itself is perfect; the first one finds the library's own bytes there and does nothing.
                    _ = ConcurrentStores.TryStore(at, SiteClass.Atomic8, 6, old, bytes) || TryInitial(at, bytes);
                    break;
                case Protocol.NoBarrier:
                    WriteWithoutBarriers(at, bytes);
                    break;
                default:
                    Volatile.Write(ref *(ushort*)at, GuardEntry.Spin);
                    break;
            }
        }

        if (_protocol == Protocol.ManagedGuard)
        {
            LowerGuards();
        }

        return _sites.Count;
    }

    /// <summary>The guards are up, and the collector stops this thread before it can take them down.</summary>
    private void LowerGuards()
    {
        GC.Collect();
        foreach (Site site in _sites)
        {
            Volatile.Write(ref *(ushort*)site.At, (ushort)site.First.Low);
        }
    }

    private static bool TryInitial(byte* at, SiteBytes bytes)
    {
        SiteBytes there = SiteBytes.Read(at, 6);
        return there == bytes || ConcurrentStores.TryStore(at, SiteClass.Atomic8, 6, there, bytes);
    }

    /// <summary>Guard, tail, head, one straight behind the other.</summary>
    private static void WriteWithoutBarriers(byte* at, SiteBytes bytes)
    {
        GuardEntry entry = GuardEntry.Create(at, 6, bytes, forward: 0);
        Volatile.Write(ref *(ushort*)at, entry.Guard);
        entry.Tail.CopyTo(new Span<byte>(at + 2, entry.TailLength));
        Volatile.Write(ref *(ushort*)at, entry.Head);
    }

    /// <summary>2e e8 rel32 as e8 rel32; nop: the same call, but it returns into the site.</summary>
    private static byte[] Shifted(byte[] call)
    {
        int displacement = BitConverter.ToInt32(call, 2) + 1;
        return [0xe8, .. BitConverter.GetBytes(displacement), 0x90];
    }

    private readonly record struct Site(nint At, SiteBytes First, SiteBytes Second);
}
