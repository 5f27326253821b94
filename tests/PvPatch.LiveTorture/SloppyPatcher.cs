using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Patchers that each leave out one thing the library does. The torture must see every one of them fail, or it proves nothing.
/// </summary>
internal sealed unsafe class SloppyPatcher
{
    private readonly Protocol _protocol;
    private readonly List<Site> _sites = [];
    private readonly delegate* unmanaged<GuardEntry*, long, int, void*, int> _guards;
    private readonly VirtualAddress _noBarrier;
    private readonly GuardEntry[] _entries; // pinned: each site's way to its first bytes, then each one's to its second
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

        var nothing = new Assembler(64);
        nothing.xor(eax, eax); // it succeeded
        nothing.ret();
        _noBarrier = code.Arena.Emit(nothing).Address;
        _guards = (delegate* unmanaged<GuardEntry*, long, int, void*, int>)code.Arena.Native.Guards.Value;
        _entries = GC.AllocateArray<GuardEntry>(2 * _sites.Count, pinned: true);
        for (int i = 0; i < _sites.Count; i++)
        {
            byte* at = (byte*)_sites[i].At;
            _entries[i] = GuardEntry.Create(at, 6, _sites[i].First, forward: 0);
            _entries[_sites.Count + i] = GuardEntry.Create(at, 6, _sites[i].Second, forward: 0);
        }
    }

    /// <summary>Flips all sites once.</summary>
    public long Flip()
    {
        _second = !_second;
        if (_protocol == Protocol.NoBarrier)
        {
            WriteWithoutBarriers();
            return _sites.Count;
        }

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

    /// <summary>
    /// The library's own routine with a barrier that does nothing, a site at a time: guard, tail and head one straight behind the other.
    /// Managed stores take so long in between, where the code is not optimised, that a torn site is hardly ever met.
    /// </summary>
    private void WriteWithoutBarriers()
    {
        GuardEntry* entries = (GuardEntry*)Unsafe.AsPointer(ref _entries[_second ? _sites.Count : 0]);
        for (int i = 0; i < _sites.Count; i++)
        {
            if (_guards(entries + i, 1, 1, (void*)_noBarrier.Value) != 0)
            {
                throw new InvalidOperationException("the guard routine stopped");
            }
        }
    }

    /// <summary>2e e8 rel32 as e8 rel32; nop: the same call, but it returns into the site.</summary>
    private static byte[] Shifted(byte[] call)
    {
        int displacement = BitConverter.ToInt32(call, 2) + 1;
        return [0xe8, .. BitConverter.GetBytes(displacement), 0x90];
    }

    private readonly record struct Site(nint At, SiteBytes First, SiteBytes Second);
}
