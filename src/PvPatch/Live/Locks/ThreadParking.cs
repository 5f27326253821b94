using System.Runtime.InteropServices;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>The host's side of spinlocks where executors are threads of this process: they are parked by address and key.</summary>
internal static unsafe class ThreadParking
{
    private const int BucketCount = 64; // a power of 2

    private static readonly Bucket[] s_buckets = [.. Enumerable.Range(0, BucketCount).Select(static _ => new Bucket())];

    [ThreadStatic]
    private static Waiter? s_waiter;

    public static SpinLockHost CreateHost() => new(
        "threads",
        Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, uint, void>)&Wait), "park").CalledBy(SpinLockHost.OfSystem),
        Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, void>)&Kick), "unpark").CalledBy(SpinLockHost.OfSystem),
        WakeAll);

    // Exceptions must not leave: there is generated code above. None is expected but the interruption of a thread, see Waiter.
    [UnmanagedCallersOnly]
    private static void Wait(ulong address, uint value, uint key)
    {
        Waiter waiter = s_waiter ??= new Waiter();
        Bucket bucket = BucketOf(address);
        lock (bucket)
        {
            // Kicks take the bucket's lock: one that comes before finds nobody, but the word was changed before it, and that is seen here.
            if (Volatile.Read(ref *(uint*)address) != value)
            {
                return;
            }

            waiter.Prepare(address, key);
            bucket.Waiters.Add(waiter);
        }

        if (!waiter.Sleep())
        {
            lock (bucket)
            {
                bucket.Waiters.Remove(waiter);
            }

            Thread.CurrentThread.Interrupt(); // for whoever may be interrupted next: this code must go on
        }
    }

    [UnmanagedCallersOnly]
    private static void Kick(ulong address, uint key)
    {
        Waiter? found = null;
        Bucket bucket = BucketOf(address);
        lock (bucket)
        {
            int index = bucket.Waiters.FindIndex(w => w.Address == address && w.Key == key);
            if (index >= 0)
            {
                found = bucket.Waiters[index];
                bucket.Waiters.RemoveAt(index);
            }
        }

        found?.Wake();
    }

    private static void WakeAll()
    {
        foreach (Bucket bucket in s_buckets)
        {
            lock (bucket)
            {
                bucket.Waiters.ForEach(static w => w.Wake());
                bucket.Waiters.Clear();
            }
        }
    }

    private static Bucket BucketOf(ulong address) => s_buckets[(int)((address >> 2) * 0x9e3779b97f4a7c15 >> 58)];

    private sealed class Bucket
    {
        public List<Waiter> Waiters { get; } = [];
    }

    /// <summary>A thread's place to sleep.</summary>
    private sealed class Waiter
    {
        private bool _kicked;

        public ulong Address { get; private set; }

        public uint Key { get; private set; }

        public void Prepare(ulong address, uint key)
        {
            (Address, Key) = (address, key);
            lock (this)
            {
                _kicked = false;
            }
        }

        /// <summary>Sleeps until it is woken; gives <see langword="false"/> where the thread was interrupted.</summary>
        public bool Sleep()
        {
            try
            {
                lock (this)
                {
                    while (!_kicked)
                    {
                        Monitor.Wait(this);
                    }
                }

                return true;
            }
            catch (ThreadInterruptedException)
            {
                return false;
            }
        }

        public void Wake()
        {
            lock (this)
            {
                _kicked = true;
                Monitor.Pulse(this);
            }
        }
    }
}
