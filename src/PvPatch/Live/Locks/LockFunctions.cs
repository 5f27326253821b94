using Iced.Intel;
using PvPatch.Locks;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Live;

/// <summary>
/// The functions of spinlocks in one arena, all kinds and modes in one block, and the backends made of them. The block has sites of its
/// own: the wait and the kick, which are nops natively and the host's else.
/// </summary>
internal sealed class LockFunctions
{
    private const int ControlWaiting = 0;
    private const int ControlMayWait = 4;
    private const int ControlWaits = 8;

    private static readonly RegisterSet s_kept = CallConvention.CalleeSave.DestroyedBy(64);

    private readonly OpsLayout _layout;
    private readonly SpinLockHost _host;
    private readonly LockChecker? _checker;
    private readonly Dictionary<(SpinLockKind Kind, SpinLockMode Mode), Backend> _backends = [];

    /// <summary>Puts the functions into an arena.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="layout">A layout of <see cref="CreateLayout"/>.</param>
    /// <param name="host">Who lets threads wait.</param>
    /// <param name="control">
    /// Words of 4, 4 and 8 bytes: how many are about to wait or waiting, whether anybody may, how often anybody has.
    /// </param>
    /// <param name="spins">How often a lock is looked at before its function waits in the host.</param>
    /// <param name="checker">Who is told of every lock and unlock; <see langword="null"/> for nobody.</param>
    public LockFunctions(CodeArena arena, OpsLayout layout, SpinLockHost host, VirtualAddress control, int spins, LockChecker? checker)
    {
        _layout = layout;
        _host = host;
        _checker = checker;
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        Label wait = a.CreateLabel();
        WriteWait(a, sites, ref wait, control);
        var functions = new LockAssembler(a, wait, () => sites.Emit(a, layout["lock.kick"]), spins);
        var labels = new List<(SpinLockKind Kind, SpinLockMode Mode, Label Lock, Label Unlock)>();
        foreach (SpinLockKind kind in Enum.GetValues<SpinLockKind>())
        {
            foreach (SpinLockMode mode in Enum.GetValues<SpinLockMode>())
            {
                Write(functions, sites, kind, mode, out Label @lock, out Label unlock);
                labels.Add((kind, mode, @lock, unlock));
            }
        }

        a.int3(); // behind the last label in any case
        Block = arena.Emit(a, sites, out CodeLabels addresses);
        foreach ((SpinLockKind kind, SpinLockMode mode, Label @lock, Label unlock) in labels)
        {
            _backends.Add((kind, mode), CreateBackend(kind, mode, addresses[@lock], addresses[unlock]));
        }
    }

    /// <summary>The block of the functions.</summary>
    public CodeBlock Block { get; }

    /// <summary>What locks of a kind do in a mode.</summary>
    public Backend this[SpinLockKind kind, SpinLockMode mode] => _backends[(kind, mode)];

    /// <summary>
    /// The operations: the two of generated code, those by which lock functions reach the host, and those that are told of locks and
    /// unlocks where they are checked.
    /// </summary>
    public static OpsLayout CreateLayout() => OpsLayout.Create(
        static b => b.Table(
            "lock",
            static t => t.Slot("spin_lock").Slot("spin_unlock").Slot("wait").Slot("kick").Slot("taking").Slot("taken").Slot("releasing"),
            CallConvention.CalleeSave),
        "spinlocks");

    /// <summary>
    /// The one way into the host's wait. The count goes up before the permission is read, by a locked instruction; a switch takes the
    /// permission away before it reads the count. So either the switch sees who is on the way in, or that one sees that it may not.
    /// </summary>
    private void WriteWait(Assembler a, SiteEmitter sites, ref Label wait, VirtualAddress control)
    {
        Label leave = a.CreateLabel();
        a.Label(ref wait);
        a.sub(rsp, 8);
        a.mov(rax, control.Value);
        a.@lock.inc(__dword_ptr[rax + ControlWaiting]);
        a.cmp(__dword_ptr[rax + ControlMayWait], 0);
        a.je(leave);
        a.@lock.inc(__qword_ptr[rax + ControlWaits]);
        sites.Emit(a, _layout["lock.wait"]);
        a.mov(rax, control.Value);
        a.Label(ref leave);
        a.@lock.dec(__dword_ptr[rax + ControlWaiting]);
        a.add(rsp, 8);
        a.ret();
    }

    private void Write(
        LockAssembler functions, SiteEmitter sites, SpinLockKind kind, SpinLockMode mode, out Label @lock, out Label unlock)
    {
        Assembler a = functions.Assembler;
        LockCode code = LockCode.Of(kind);
        @lock = a.CreateLabel();
        unlock = a.CreateLabel();
        a.Label(ref @lock);
        code.WriteLock(functions, mode == SpinLockMode.Paravirtual);
        a.Label(ref unlock);
        if (mode == SpinLockMode.Paravirtual)
        {
            code.WriteUnlock(functions);
        }
        else
        {
            code.Unlock.WriterFor(CallConvention.CalleeSave)!(a);
            a.ret();
        }

        if (_checker is not null)
        {
            (@lock, unlock) = WriteChecked(a, sites, @lock, unlock);
        }
    }

    /// <summary>Functions that tell of the lock (rdi) and of who called (rsi) before and behind those they stand for.</summary>
    private (Label Lock, Label Unlock) WriteChecked(Assembler a, SiteEmitter sites, Label @lock, Label unlock)
    {
        Label checkedLock = a.CreateLabel();
        Label checkedUnlock = a.CreateLabel();
        Label refused = a.CreateLabel();
        a.Label(ref checkedLock);
        Enter();
        sites.Emit(a, _layout["lock.taking"]);
        a.call(@lock);
        sites.Emit(a, _layout["lock.taken"]);
        Leave();

        a.Label(ref checkedUnlock);
        Enter();
        sites.Emit(a, _layout["lock.releasing"]);
        a.test(eax, eax);
        a.je(refused);
        a.call(unlock);
        a.Label(ref refused);
        Leave();
        return (checkedLock, checkedUnlock);

        void Enter()
        {
            a.push(rsi);
            a.push(rdx);
            a.sub(rsp, 8);
            a.mov(edx, _checker!.Number);
        }

        void Leave()
        {
            a.add(rsp, 8);
            a.pop(rdx);
            a.pop(rsi);
            a.ret();
        }
    }

    private Backend CreateBackend(SpinLockKind kind, SpinLockMode mode, VirtualAddress @lock, VirtualAddress unlock)
    {
        bool mayWait = mode == SpinLockMode.Paravirtual;
        string name = $"{kind} {mode}".ToLowerInvariant();
        return Backend.Create(name, _layout, b =>
        {
            b.Set("lock.spin_lock", Call(@lock, "lock"))
                .Set("lock.spin_unlock",
                    mayWait || _checker is not null ? Call(unlock, "unlock") : Operation.Inline(LockCode.Of(kind).Unlock))
                .Set("lock.wait", mayWait ? _host.Wait : Operation.Nop)
                .Set("lock.kick", mayWait ? _host.Kick : Operation.Nop)
                .Nop("lock.taking").Nop("lock.taken").Nop("lock.releasing");
            if (_checker is not null)
            {
                b.Set("lock.taking", LockChecker.Taking).Set("lock.taken", LockChecker.Taken).Set("lock.releasing", LockChecker.Releasing);
            }
        });

        // A checked function is told its caller in rsi, which it may destroy for all it knows of the site.
        Operation Call(VirtualAddress target, string what) => _checker is null
            ? Operation.Call(target, $"{name} {what}", s_kept)
            : Operation.Call(target, $"{name} checked {what}", s_kept).PassingCaller(1);
    }
}
