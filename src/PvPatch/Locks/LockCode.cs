using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Locks;

/// <summary>
/// The code of one kind of spinlock: functions of the callee-save convention, which take the lock's address in rdi and destroy rax and
/// flags only. They are entered as by a call from code with an aligned stack, so the stack pointer is 8 past a multiple of 16 at first.
/// </summary>
/// <remarks>
/// Two rules hold in all kinds. <b>Unlock</b> stores with release order, which every store has on x86, and a paravirtual one makes that
/// store and its look for waiters one locked instruction: between two, somebody could begin to wait unseen. <b>Waiting</b> is announced in
/// the lock by a locked instruction, then the lock is read once more, and the host compares what was read with what is there in the step in
/// which it lets the thread wait.
/// </remarks>
internal abstract class LockCode
{
    private static readonly LockCode[] s_codes = [new TicketLock(), new ByteLock(), new QueuedLock()];

    /// <summary>The unlock while nobody waits in the host: one instruction.</summary>
    public abstract InlineBody Unlock { get; }

    public static LockCode Of(SpinLockKind kind) => (int)kind >= 0 && (int)kind < s_codes.Length
        ? s_codes[(int)kind] : throw new ArgumentOutOfRangeException(nameof(kind), kind, "no kind of spinlock");

    /// <summary>Whether a word is that of a lock that nobody holds or waits for.</summary>
    public abstract bool IsFree(ulong word);

    /// <summary>Writes the function that takes the lock.</summary>
    /// <param name="functions">What it may call.</param>
    /// <param name="mayWait">Whether it waits in the host where it has spun for long.</param>
    public abstract void WriteLock(LockAssembler functions, bool mayWait);

    /// <summary>Writes the function that gives the lock back and kicks who waits for it in the host.</summary>
    public abstract void WriteUnlock(LockAssembler functions);
}

/// <summary>An assembler for the functions of locks, and what they call.</summary>
/// <param name="Assembler">A 64-bit assembler.</param>
/// <param name="Wait">
/// A function of the callee-save convention: waits in the host with the address of 4 bytes in rdi, what they are in esi and a key in edx.
/// Comes back at once where they are something else or nobody may wait, when it is kicked, and whenever it likes.
/// </param>
/// <param name="Kick">Writes a call to the host: wakes who waits with the address in rdi and the key in esi. Destroys rax and
/// flags.</param>
/// <param name="Spins">How often a lock is looked at before its function waits in the host.</param>
internal sealed record LockAssembler(Assembler Assembler, Label Wait, Action Kick, int Spins);
