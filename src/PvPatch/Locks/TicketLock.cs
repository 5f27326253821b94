using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Locks;

/// <summary>
/// Ticket locks. Tail in the low half of the word, head in the high half, so that adding to the head of the whole word carries nowhere:
/// <code>
///                  head tail w
/// free                6    6 0
/// taken               6    8 0     lock xadd [lock], 2 gave 6, and 6 is served
/// two more wait       6   12 0     with 8 and 10; they spin
/// the last waits      6   12 1     in the host, with key 10
/// unlocked            8   12 1     8 is kicked in vain, it spins; it takes the lock and leaves w, for it is not the last
/// unlocked           10   12 1     10 is kicked, wakes up, takes the lock; nobody is behind it:
///                    10   12 0
/// </code>
/// Only who holds the lock clears w, and only where nobody has a ticket behind its own: an unlock reads w in the very instruction that
/// gives the lock away and touches the lock no more.
/// </summary>
internal sealed class TicketLock : LockCode
{
    private const int Step = 2;
    private const int Head = 4;

    /// <inheritdoc/>
    /// <remarks><c>83 47 04 02</c> <c>add dword [rdi+4],2</c>: not locked, as nobody else writes the head.</remarks>
    public override InlineBody Unlock { get; } = InlineBody.Create(static a => a.add(__dword_ptr[rdi + Head], Step));

    public override bool IsFree(ulong word) => (uint)(word >> 32) == ((uint)word & ~1u);

    public override void WriteLock(LockAssembler functions, bool mayWait)
    {
        Assembler a = functions.Assembler;
        Label contended = a.CreateLabel();
        Label taken = a.CreateLabel();
        a.mov(eax, Step);
        a.@lock.xadd(__dword_ptr[rdi], eax);
        a.and(eax, -Step); // the ticket, without w
        a.cmp(eax, __dword_ptr[rdi + Head]);
        a.jne(contended);
        if (!mayWait)
        {
            a.ret();
            a.Label(ref contended);
            a.pause();
            a.cmp(eax, __dword_ptr[rdi + Head]);
            a.jne(contended);
            a.ret();
            return;
        }

        a.Label(ref taken);
        Label clear = a.CreateLabel();
        a.test(__byte_ptr[rdi], 1);
        a.jne(clear);
        a.ret();
        WriteClear(a, ref clear);
        WriteWait(functions, ref contended, taken);
    }

    public override void WriteUnlock(LockAssembler functions)
    {
        Assembler a = functions.Assembler;
        Label waits = a.CreateLabel();
        a.mov(eax, Step);
        a.shl(rax, 32);
        a.@lock.xadd(__qword_ptr[rdi], rax); // gives the lock away and says whether somebody waits
        a.test(al, 1);
        a.jne(waits);
        a.ret();

        a.Label(ref waits);
        a.push(rdi);
        a.push(rsi);
        a.sub(rsp, 8);
        a.shr(rax, 32);
        a.lea(esi, __[rax + Step]); // the ticket that is served now
        a.add(rdi, Head);
        functions.Kick();
        a.add(rsp, 8);
        a.pop(rsi);
        a.pop(rdi);
        a.ret();
    }

    /// <summary>Takes w away where nobody has a ticket behind the holder's, which is in eax.</summary>
    private static void WriteClear(Assembler a, ref Label clear)
    {
        a.Label(ref clear);
        a.push(rcx);
        a.lea(ecx, __[rax + Step]); // the tail where nobody is behind: without w
        a.add(eax, Step + 1); // and with it
        a.@lock.cmpxchg(__dword_ptr[rdi], ecx);
        a.pop(rcx);
        a.ret();
    }

    private static void WriteWait(LockAssembler functions, ref Label contended, Label taken)
    {
        Assembler a = functions.Assembler;
        Label again = a.CreateLabel();
        Label spin = a.CreateLabel();
        Label mine = a.CreateLabel();
        a.Label(ref contended);
        a.push(rcx);
        a.push(rdx);
        a.push(rsi);
        a.mov(edx, eax); // the ticket, and the key that it is kicked by
        a.Label(ref again);
        a.mov(ecx, functions.Spins);
        a.Label(ref spin);
        a.pause();
        a.mov(esi, __dword_ptr[rdi + Head]);
        a.cmp(esi, edx);
        a.je(mine);
        a.dec(ecx);
        a.jne(spin);
        a.@lock.or(__dword_ptr[rdi], 1); // announced first, and then looked at once more
        a.mov(esi, __dword_ptr[rdi + Head]);
        a.cmp(esi, edx);
        a.je(mine);
        a.add(rdi, Head);
        a.call(functions.Wait);
        a.sub(rdi, Head);
        a.jmp(again);

        a.Label(ref mine);
        a.mov(eax, edx);
        a.pop(rsi);
        a.pop(rdx);
        a.pop(rcx);
        a.jmp(taken);
    }
}
