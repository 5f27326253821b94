using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// Knows who holds which spinlock since where, and finds what is wrong: a lock released by another than its holder or by nobody's, taken by
/// its holder once more. An unlock that is wrong is not done.
/// </summary>
internal sealed unsafe class LockChecker : IDisposable
{
    /// <summary>How many findings are kept; the others are counted.</summary>
    public const int MostFindings = 100;

    private static readonly ConcurrentDictionary<int, LockChecker> s_all = new();
    private static int s_last;

    private readonly CodeArena _arena;
    private readonly Dictionary<ulong, Record> _locks = [];
    private readonly List<PatchDiagnostic> _found = [];
    private long _count;

    public LockChecker(CodeArena arena)
    {
        _arena = arena;
        Number = Interlocked.Increment(ref s_last);
        s_all[Number] = this;
    }

    /// <summary>By what the functions in the arena name it.</summary>
    public int Number { get; }

    /// <summary>How much was found.</summary>
    public long Count => Volatile.Read(ref _count);

    public static Operation Taking { get; } = Call((delegate* unmanaged<ulong, ulong, int, void>)&OnTaking, "taking");

    public static Operation Taken { get; } = Call((delegate* unmanaged<ulong, ulong, int, void>)&OnTaken, "taken");

    /// <summary>Gives 1 where the lock may be released, 0 where not.</summary>
    public static Operation Releasing { get; } = Call((delegate* unmanaged<ulong, ulong, int, int>)&OnReleasing, "releasing");

    public IReadOnlyList<PatchDiagnostic> Found
    {
        get
        {
            lock (_found)
            {
                return [.. _found];
            }
        }
    }

    public void Dispose() => s_all.TryRemove(Number, out _);

    [UnmanagedCallersOnly]
    private static void OnTaking(ulong word, ulong caller, int number)
    {
        if (s_all.TryGetValue(number, out LockChecker? checker))
        {
            checker.CheckTaking(word, caller);
        }
    }

    [UnmanagedCallersOnly]
    private static void OnTaken(ulong word, ulong caller, int number)
    {
        if (s_all.TryGetValue(number, out LockChecker? checker))
        {
            Who who = checker.Me();
            lock (checker._locks)
            {
                checker._locks[word] = new Record(who, caller, IsHeld: true);
            }
        }
    }

    [UnmanagedCallersOnly]
    private static int OnReleasing(ulong word, ulong caller, int number) =>
        !s_all.TryGetValue(number, out LockChecker? checker) || checker.CheckReleasing(word, caller) ? 1 : 0;

    private static Operation Call(void* function, string name) =>
        Operation.Call(ManagedTarget.Of(function), name).CalledBy(SpinLockHost.OfSystem);

    private void CheckTaking(ulong word, ulong caller)
    {
        Who who = Me();
        Record? record;
        lock (_locks)
        {
            record = _locks.GetValueOrDefault(word);
        }

        if (record is { IsHeld: true } && record.Who.Identity == who.Identity)
        {
            Add($"the lock at {(VirtualAddress)word} is taken by {who.Name}, which holds it and will wait for itself", caller,
                $"held since {Place(record.Caller)}", null);
        }
    }

    private bool CheckReleasing(ulong word, ulong caller)
    {
        Who who = Me();
        Record? record;
        bool mine;
        lock (_locks)
        {
            record = _locks.GetValueOrDefault(word);
            mine = record is { IsHeld: true } && record.Who.Identity == who.Identity;
            if (mine)
            {
                _locks[word] = new Record(who, caller, IsHeld: false); // before it is: the next holder's record comes behind
            }
        }

        if (!mine)
        {
            string found = record is null ? "never taken"
                : record.IsHeld ? $"held by {record.Who.Name} since {Place(record.Caller)}"
                : $"free, released by {record.Who.Name} at {Place(record.Caller)}";
            Add($"the lock at {(VirtualAddress)word} is released by {who.Name}, which does not hold it", caller, found,
                $"held by {who.Name}");
        }

        return mine;
    }

    private void Add(string message, ulong caller, string found, string? expected)
    {
        Interlocked.Increment(ref _count);
        lock (_found)
        {
            if (_found.Count < MostFindings)
            {
                bool known = _arena.TryFindCaller(caller, out LiveSite site);
                _found.Add(PatchDiagnostic.Error(DiagnosticCodes.LockMisuse, message) with
                {
                    Source = known ? PlaceIn(site) : null,
                    Address = known ? site.Address : caller,
                    Found = found,
                    Expected = expected,
                });
            }
        }
    }

    private string Place(VirtualAddress caller) => _arena.TryFindCaller(caller, out LiveSite site) ? $"{site.Address}" : $"{caller}";

    private static string PlaceIn(LiveSite site) => string.Create(
        CultureInfo.InvariantCulture, $"{site.Name} at +0x{site.Address - site.Block.Address:x} of the block at {site.Block.Address}");

    private Who Me() => _arena.Executors.InsideOnThisThread() is Executor executor
        ? new Who(executor, $"executor {executor.Name}")
        : new Who(Thread.CurrentThread, string.Create(CultureInfo.InvariantCulture, $"thread {Environment.CurrentManagedThreadId}"));

    /// <summary>An executor, or the thread where it has none.</summary>
    private readonly record struct Who(object Identity, string Name);

    private sealed record Record(Who Who, VirtualAddress Caller, bool IsHeld);
}
