using System.Runtime.InteropServices;
using PvPatch.Live;
using PvPatch.Mechanisms;

namespace PvPatch.LiveTorture;

/// <summary>
/// A host whose wait does not look at the lock once more when it has entered the waiter: a kick that comes before is lost.
/// </summary>
internal static unsafe class ForgetfulHost
{
    private static readonly object s_sync = new();
    private static readonly Dictionary<(ulong Address, uint Key), int> s_kicks = [];
    private static readonly List<(ulong Address, uint Key)> s_waiting = [];

    public static SpinLockHost Create() => new(
        "forgetful",
        Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, uint, void>)&Wait)).CalledBy(SpinLockHost.OfSystem),
        Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, void>)&Kick)).CalledBy(SpinLockHost.OfSystem),
        WakeAll);

    [UnmanagedCallersOnly]
    private static void Wait(ulong address, uint value, uint key)
    {
        lock (s_sync)
        {
            s_waiting.Add((address, key));
            while (s_kicks.GetValueOrDefault((address, key)) == 0)
            {
                Monitor.Wait(s_sync);
            }

            s_kicks[(address, key)]--;
            s_waiting.Remove((address, key));
        }
    }

    [UnmanagedCallersOnly]
    private static void Kick(ulong address, uint key)
    {
        lock (s_sync)
        {
            int waiting = s_waiting.Count(w => w == (address, key));
            if (waiting > s_kicks.GetValueOrDefault((address, key)))
            {
                s_kicks[(address, key)] = s_kicks.GetValueOrDefault((address, key)) + 1;
                Monitor.PulseAll(s_sync);
            }
        }
    }

    private static void WakeAll()
    {
        lock (s_sync)
        {
            foreach ((ulong Address, uint Key) waiter in s_waiting)
            {
                s_kicks[waiter] = s_kicks.GetValueOrDefault(waiter) + 1;
            }

            Monitor.PulseAll(s_sync);
        }
    }
}
