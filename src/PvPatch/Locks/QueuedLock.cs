using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Locks;

/// <summary>
/// Queued locks (after Mellor-Crummey and Scott, with the lock's own byte as the kernel has it). The word has the address of the last node,
/// shifted left by 8, and the byte that says whether the lock is held:
/// <code>
/// free                     0          | 0
/// held, nobody waits       0          | 1
/// B and C wait             C's node   | 1      B's node → C's node; B looks at the byte, C at its own node
/// unlocked                 C's node   | 0      B sees it, sets the byte, tells C's node that C is first now
/// held by B                C's node   | 1
/// </code>
/// A node (next: 8 bytes, state: 4) lies on the stack of the one that waits, and is needed no longer than that: executors and processors
/// have none to share or to run out of, and an interrupt that takes another lock has one of its own. Whoever tells a node that it is the
/// first touches it no more; a kick names an address and reads nothing there.
/// </summary>
internal sealed class QueuedLock : LockCode
{
    private const int Held = 1;
    private const int HeldAndFirstWaits = 2;

    private const int State = 8;
    private const int First = 1; // of a node's state; 0 before
    private const int Waits = 2;

    private const int NodeRoom = 24; // with the four registers pushed before it, a multiple of 16

    /// <inheritdoc/>
    /// <remarks><c>c6 07 00</c> <c>mov byte [rdi],0</c>: the nodes' part of the word stays.</remarks>
    public override InlineBody Unlock { get; } = InlineBody.Create(static a => a.mov(__byte_ptr[rdi], 0));

    public override bool IsFree(ulong word) => word == 0;

    public override void WriteLock(LockAssembler functions, bool mayWait)
    {
        Assembler a = functions.Assembler;
        Label contended = a.CreateLabel();
        Label first = a.CreateLabel();
        a.push(rcx);
        a.xor(eax, eax);
        a.mov(ecx, Held);
        a.@lock.cmpxchg(__qword_ptr[rdi], rcx); // only where nobody is in the queue either
        a.jne(contended);
        a.pop(rcx);
        a.ret();

        a.Label(ref contended);
        a.push(rdx);
        a.push(rsi);
        a.push(r8);
        a.sub(rsp, NodeRoom);
        WriteEnqueue(functions, first, mayWait);
        WriteFirst(functions, ref first, mayWait);
        a.add(rsp, NodeRoom);
        a.pop(r8);
        a.pop(rsi);
        a.pop(rdx);
        a.pop(rcx);
        a.ret();
    }

    public override void WriteUnlock(LockAssembler functions)
    {
        Assembler a = functions.Assembler;
        Label waits = a.CreateLabel();
        a.xor(eax, eax);
        a.xchg(__byte_ptr[rdi], al); // locked, as every xchg with memory
        a.cmp(al, HeldAndFirstWaits);
        a.je(waits);
        a.ret();

        a.Label(ref waits);
        a.push(rsi);
        a.xor(esi, esi);
        functions.Kick();
        a.pop(rsi);
        a.ret();
    }

    /// <summary>Puts the node at the stack pointer into the queue and waits until it is the first.</summary>
    private static void WriteEnqueue(LockAssembler functions, Label first, bool mayWait)
    {
        Assembler a = functions.Assembler;
        Label swap = a.CreateLabel();
        Label again = a.CreateLabel();
        Label spin = a.CreateLabel();
        Label announced = a.CreateLabel();
        a.xor(eax, eax);
        a.mov(__qword_ptr[rsp], rax);
        a.mov(__dword_ptr[rsp + State], eax);
        a.mov(rax, __qword_ptr[rdi]);
        a.Label(ref swap);
        a.mov(rcx, rsp);
        a.shl(rcx, 8);
        a.mov(cl, al); // held or not, as it is
        a.@lock.cmpxchg(__qword_ptr[rdi], rcx);
        a.jne(swap);
        a.sar(rax, 8); // the node before; its sign is that of bit 55
        a.je(first);
        a.mov(__qword_ptr[rax], rsp);

        a.Label(ref again);
        a.mov(ecx, functions.Spins);
        a.Label(ref spin);
        a.pause();
        a.cmp(__dword_ptr[rsp + State], First);
        a.je(first);
        if (!mayWait)
        {
            a.jmp(spin);
            return;
        }

        a.dec(ecx);
        a.jne(spin);
        a.xor(eax, eax);
        a.mov(ecx, Waits);
        a.@lock.cmpxchg(__dword_ptr[rsp + State], ecx);
        a.je(announced);
        a.cmp(eax, First);
        a.je(first);
        a.Label(ref announced); // now or before
        a.mov(r8, rdi);
        a.lea(rdi, __[rsp + State]);
        a.mov(esi, Waits);
        a.xor(edx, edx);
        a.call(functions.Wait);
        a.mov(rdi, r8);
        a.jmp(again);
    }

    /// <summary>As the first of the queue: waits for the lock's byte, takes the lock, and makes the next one the first.</summary>
    private static void WriteFirst(LockAssembler functions, ref Label first, bool mayWait)
    {
        Assembler a = functions.Assembler;
        Label spin = a.CreateLabel();
        Label free = a.CreateLabel();
        Label next = a.CreateLabel();
        Label find = a.CreateLabel();
        Label pass = a.CreateLabel();
        Label done = a.CreateLabel();
        a.Label(ref first);
        a.mov(ecx, functions.Spins);
        a.Label(ref spin);
        a.mov(rax, __qword_ptr[rdi]);
        a.test(al, al);
        a.je(free);
        a.pause();
        if (mayWait)
        {
            a.dec(ecx);
            a.jne(spin);
            a.mov(eax, Held);
            a.mov(ecx, HeldAndFirstWaits);
            a.@lock.cmpxchg(__byte_ptr[rdi], cl);
            a.mov(esi, __dword_ptr[rdi]); // with a part of the last node's address: where that changes the host sends us back
            a.mov(ecx, functions.Spins);
            a.cmp(sil, HeldAndFirstWaits);
            a.jne(spin);
            a.xor(edx, edx);
            a.call(functions.Wait);
            a.mov(ecx, functions.Spins);
        }

        a.jmp(spin);

        a.Label(ref free);
        a.mov(rcx, rsp);
        a.shl(rcx, 8);
        a.cmp(rax, rcx);
        a.jne(next);
        a.mov(ecx, Held);
        a.@lock.cmpxchg(__qword_ptr[rdi], rcx); // the last one too: the queue is empty then
        a.je(done);
        a.Label(ref next);
        a.mov(__byte_ptr[rdi], Held); // nobody else may: the queue is not empty, and this is its first

        a.Label(ref find);
        a.mov(rax, __qword_ptr[rsp]);
        a.test(rax, rax);
        a.jne(pass);
        a.pause(); // it has put itself behind us, and is about to say so in our node
        a.jmp(find);

        a.Label(ref pass);
        a.mov(ecx, First);
        a.xchg(__dword_ptr[rax + State], ecx);
        if (mayWait)
        {
            a.cmp(ecx, Waits);
            a.jne(done);
            a.mov(r8, rdi);
            a.lea(rdi, __[rax + State]);
            a.xor(esi, esi);
            functions.Kick();
            a.mov(rdi, r8);
        }

        a.Label(ref done);
    }
}
