using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// What a hypervisor, or whatever runs the executors, has for those who wait for spinlocks: a wait, a kick, and a way to wake all of them.
/// </summary>
/// <remarks>
/// <b>Wait</b> gets an address, a 32-bit value and a key (the first three arguments). It comes back at once where the 4 bytes at the
/// address are something else; else it waits until it is kicked by address and key. That they are compared and that the waiter is entered
/// where kicks look for it must be one step to kicks: <em>enter, compare, then sleep</em>. Compared before it is entered, or not at all, a
/// kick between the two is lost, and the waiter sleeps with the lock free. It may come back too often, for any reason.
/// <b>Kick</b> gets an address and a key, and wakes one who waits with both (all of them will do). It reads nothing at the address: the
/// lock may be gone. Neither may take a lock of generated code.
/// </remarks>
public sealed class SpinLockHost
{
    private readonly Action _wakeAll;

    /// <summary>Makes a host.</summary>
    /// <param name="name">A name for reports.</param>
    /// <param name="wait">A call of the wait; <see cref="Operation.CalledBy"/> says its convention.</param>
    /// <param name="kick">A call of the kick.</param>
    /// <param name="wakeAll">Lets every wait come back that is under way. Called more than once by each switch, on its thread.</param>
    /// <exception cref="ArgumentException">An operation is no call.</exception>
    public SpinLockHost(string name, Operation wait, Operation kick, Action wakeAll)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(wakeAll);
        Name = name;
        Wait = CallOnly(wait, nameof(wait));
        Kick = CallOnly(kick, nameof(kick));
        _wakeAll = wakeAll;
    }

    /// <summary>Parks the threads of this process.</summary>
    public static SpinLockHost Threads { get; } = ThreadParking.CreateHost();

    /// <summary>A name for reports.</summary>
    public string Name { get; }

    /// <summary>The wait.</summary>
    public Operation Wait { get; }

    /// <summary>The kick.</summary>
    public Operation Kick { get; }

    /// <summary>The convention of functions marked UnmanagedCallersOnly on this system.</summary>
    internal static CallConvention OfSystem => OperatingSystem.IsWindows() ? CallConvention.WindowsX64 : CallConvention.SysV;

    internal void WakeAll() => _wakeAll();

    private static Operation CallOnly(Operation operation, string parameter)
    {
        ArgumentNullException.ThrowIfNull(operation, parameter);
        return operation.Kind == OperationKind.Call
            ? operation : throw new ArgumentException($"a call of a function is wanted, not {operation.Kind}", parameter);
    }
}
