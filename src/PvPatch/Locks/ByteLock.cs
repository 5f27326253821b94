using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Locks;

/// <summary>
/// Byte locks: bit 0 is set while the lock is held, bit 1 while somebody may wait for it in the host. An unlock clears both and kicks one
/// of those who wait; whoever has waited sets both when it takes the lock, for there may be others whom nobody else would remember.
/// </summary>
internal sealed class ByteLock : LockCode
{
    private const int Held = 1;
    private const int HeldAndWaitedFor = 3;

    /// <inheritdoc/>
    /// <remarks><c>c6 07 00</c> <c>mov byte [rdi],0</c>.</remarks>
    public override InlineBody Unlock { get; } = InlineBody.Create(static a => a.mov(__byte_ptr[rdi], 0));

    public override bool IsFree(ulong word) => word == 0;

    public override void WriteLock(LockAssembler functions, bool mayWait)
    {
        Assembler a = functions.Assembler;
        Label contended = a.CreateLabel();
        a.@lock.bts(__dword_ptr[rdi], 0); // leaves bit 1 as it is
        a.jc(contended);
        a.ret();

        if (mayWait)
        {
            WriteWait(functions, ref contended);
            return;
        }

        a.Label(ref contended);
        a.pause();
        a.test(__byte_ptr[rdi], Held);
        a.jne(contended);
        a.@lock.bts(__dword_ptr[rdi], 0);
        a.jc(contended);
        a.ret();
    }

    public override void WriteUnlock(LockAssembler functions)
    {
        Assembler a = functions.Assembler;
        Label waits = a.CreateLabel();
        a.xor(eax, eax);
        a.xchg(__byte_ptr[rdi], al); // locked, as every xchg with memory
        a.test(al, HeldAndWaitedFor & ~Held);
        a.jne(waits);
        a.ret();

        a.Label(ref waits);
        a.push(rsi);
        a.xor(esi, esi);
        functions.Kick();
        a.pop(rsi);
        a.ret();
    }

    private static void WriteWait(LockAssembler functions, ref Label contended)
    {
        Assembler a = functions.Assembler;
        Label again = a.CreateLabel();
        Label spin = a.CreateLabel();
        Label free = a.CreateLabel();
        Label wait = a.CreateLabel();
        a.Label(ref contended);
        a.push(rcx);
        a.push(rdx);
        a.push(rsi);
        a.push(r8);
        a.sub(rsp, 8);
        a.xor(edx, edx); // the key: one for all
        a.mov(r8d, Held); // what it sets when it takes the lock: both bits once it has waited
        a.Label(ref again);
        a.mov(ecx, functions.Spins);
        a.Label(ref spin);
        a.test(__byte_ptr[rdi], Held);
        a.je(free);
        a.pause();
        a.dec(ecx);
        a.jne(spin);
        a.mov(eax, Held);
        a.mov(ecx, HeldAndWaitedFor);
        a.@lock.cmpxchg(__dword_ptr[rdi], ecx);
        a.je(wait);
        a.cmp(eax, HeldAndWaitedFor); // announced by another
        a.jne(again);
        a.Label(ref wait);
        a.mov(esi, HeldAndWaitedFor);
        a.mov(r8d, HeldAndWaitedFor);
        a.call(functions.Wait);
        a.jmp(again);

        a.Label(ref free);
        a.xor(eax, eax);
        a.@lock.cmpxchg(__dword_ptr[rdi], r8d);
        a.jne(again);
        a.add(rsp, 8);
        a.pop(r8);
        a.pop(rsi);
        a.pop(rdx);
        a.pop(rcx);
        a.ret();
    }
}
