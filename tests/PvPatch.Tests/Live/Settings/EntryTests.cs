using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Live.Behaviour;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>
/// Functions replaced whole, and vectors, while a thread runs them: three entries, three words of a table that generated code indexes, and a
/// table found through one constant, all switched in one batch. Implementation n gives n at every one of them.
/// </summary>
public sealed unsafe class EntryTests : IDisposable
{
    private const int Entries = 3;
    private const int Vectors = 3;
    private const int Implementations = 3; // the functions themselves are number 0
    private const int Answers = Entries + Vectors + 1;

    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(b => b.Table("vector", t =>
    {
        for (int i = 0; i < Vectors; i++)
        {
            t.Slot($"v{i}", SlotKind.Jump);
        }
    }));

    private readonly LivePatcher _live;
    private readonly StaticCall[] _entries = [.. Enumerable.Range(0, Entries).Select(static i => new StaticCall($"entry {i}"))];
    private readonly CodeConstant _table = new("table");
    private readonly VirtualAddress[] _whole = new VirtualAddress[Implementations]; // what entries and vectors lead to
    private readonly VirtualAddress[] _tables = new VirtualAddress[Implementations]; // one vector each
    private readonly Backend[] _backends = new Backend[Implementations];
    private readonly CodeBlock[] _own;

    // What the two threads tell each other: batch n was begun, batch n was through. Batch n leads to implementation Of[n].
    private int[] _of = [0];
    private int _begun;
    private int _through;

    public EntryTests()
    {
        _live = new LivePatcher(_arena, _layout);
        for (int n = 0; n < Implementations; n++)
        {
            _whole[n] = LiveCode.EmitHelper(_arena, n);
            _backends[n] = Backend.Create($"{n}", _layout, b =>
            {
                for (int i = 0; i < Vectors; i++)
                {
                    b.Jump($"vector.v{i}", _whole[n]);
                }
            });
            var data = new Assembler(64);
            data.dq(_whole[n].Value);
            _tables[n] = _arena.Emit(data).Address;
        }

        _own = [.. _entries.Select(e => Emit((s, a) =>
        {
            s.Entry(a, e);
            a.xor(eax, eax);
            a.ret();
        }))];
        Switch(0);
    }

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    [Fact]
    public void Entries_and_vectors_are_one_batch_and_go_back_as_one()
    {
        CodeBlock all = EmitAll();
        for (int n = Implementations - 1; n >= 0; n--)
        {
            ApplyResult result = Switch(n);
            Assert.Equal((Entries + 1, Vectors), (result.Written, result.SlotsWritten));
            Assert.Equal(Enumerable.Repeat((byte)n, Answers), Run(all));
            Assert.All(_own, b => Assert.Equal(n == 0 ? 0x0f : 0xe9, b.ToArray()[0]));
        }

        // One that fails at its second entry, at a slot, or behind the last store leaves nothing of what it had done.
        foreach ((PatchStep step, int index) in new[] { (PatchStep.Store, 1), (PatchStep.Slot, 1), (PatchStep.Publish, 0) })
        {
            int reached = 0;
            _live.Probe = (at, _) => _ = at == step && reached++ == index ? throw new InvalidOperationException() : 0;
            Assert.False(_live.TryApply(c => To(c, 2), null, out ApplyResult failed));
            Assert.Equal(ApplyStatus.RolledBack, failed.Status);
            _live.Probe = null;
            Assert.Equal(new byte[Answers], Run(all));
            Assert.All(_entries, e => Assert.Null(e.Target));
        }
    }

    [Fact]
    public void A_block_that_an_entry_or_a_vector_leads_to_stays()
    {
        CodeBlock Block(int n) => _arena.TryFindBlock(_whole[n], out CodeBlock? block) ? block : throw new InvalidOperationException();
        Switch(1);
        PatchDiagnostic held = Assert.Throws<PatchException>(() => _arena.Retire(Block(1))).Diagnostic;
        Assert.Equal("PV8032", held.Code);
        _arena.Retire(Block(2)); // nothing leads there
        Assert.False(_live.TryApply(c => c.Target(_entries[0], _whole[0]).Target(_entries[1], _whole[2]), null, out ApplyResult result));
        Assert.Equal("PV8013", result.Diagnostics[0].Code);
        Assert.Equal(_whole[1], _entries[0].Target); // nor was the one that could be
        Assert.False(_live.TrySwitch(_backends[2], null, null, out result));
        Assert.Equal("PV8013", result.Diagnostics[0].Code);
        Assert.False(_live.TrySwitch(_backends[0], SiteScope.Sites(_own[0][0]), null, out result));
        Assert.Equal("PV8035", result.Diagnostics[0].Code);
        Assert.Equal(Enumerable.Repeat((byte)1, Answers), Run(EmitAll()));
    }

    [Fact]
    public void A_running_thread_sees_whole_entries_of_the_batches_that_are_through() =>
        Isolated.Run(typeof(EntryTests), () => Flip(flips: 100_000, null, out _), seconds: 300);

    [Fact]
    public void At_quiescence_a_thread_never_sees_two_implementations() => Isolated.Run(typeof(EntryTests), () =>
    {
        Flip(flips: 3_000, LiveCode.Quiescent, out long mixed);
        Assert.Equal(0, mixed);
    });

    /// <summary>
    /// Switches while a thread runs everything, and checks each of its runs: what it saw is of the batch that was through before it began, or
    /// of one that was begun before it ended.
    /// </summary>
    /// <param name="flips">Number of batches.</param>
    /// <param name="options">How they are applied.</param>
    /// <param name="mixed">Runs that saw more than one implementation.</param>
    private void Flip(int flips, SwitchOptions? options, out long mixed)
    {
        CodeBlock all = EmitAll();
        Random random = TestSeed.NewRandom();
        _of = [0, .. Enumerable.Range(0, flips).Select(_ => random.Next(Implementations))];
        using var started = new ManualResetEventSlim();
        bool stop = false;
        (long runs, long still, long mixes) = (0, 0, 0);
        string? wrong = null;
        var runner = new Thread(() =>
        {
            using Executor executor = _arena.RegisterExecutor();
            var seen = new byte[sizeof(ulong)];
            while (!Volatile.Read(ref stop) && wrong is null)
            {
                executor.Enter();
                int first = Volatile.Read(ref _through);
                Unsafe.WriteUnaligned(ref seen[0], Call(all));
                int last = Volatile.Read(ref _begun);
                executor.Leave();
                ReadOnlySpan<int> allowed = _of.AsSpan(first..(last + 1));
                ReadOnlySpan<byte> answers = seen.AsSpan(0, Answers);
                runs++;
                still += first == last ? 1 : 0;
                mixes += answers.ContainsAnyExcept(answers[0]) ? 1 : 0;
                foreach (byte answer in answers)
                {
                    if (!allowed.Contains(answer))
                    {
                        wrong = $"{Convert.ToHexString(answers)} between batch {first} and {last}: {string.Join(' ', allowed.ToArray())}";
                    }
                }

                started.Set();
            }
        });
        runner.Start();
        started.Wait();
        for (int flip = 1; flip <= flips && wrong is null; flip++)
        {
            Volatile.Write(ref _begun, flip);
            _ = Switch(_of[flip], options);
            Volatile.Write(ref _through, flip);
            if (flip % 64 == 0)
            {
                Thread.Yield(); // on one processor the runner must come to run in between
            }
        }

        Volatile.Write(ref stop, true);
        runner.Join();
        Assert.Null(wrong);
        Console.Error.WriteLine($"{TestSeed.Name}: {runs} runs, {still} between batches, {mixes} mixed; {flips} batches");
        Assert.True(still > 0, $"none of {runs} runs was between two batches");
        mixed = mixes;
    }

    private ApplyResult Switch(int n, SwitchOptions? options = null) => _live.Apply(c => To(c, n), options);

    private void To(LiveChanges changes, int n)
    {
        Array.ForEach(_entries, e => changes.Target(e, n == 0 ? null : _whole[n]));
        changes.Use(_backends[n]).Set(_table, (long)_tables[n].Value);
    }

    /// <summary>A function that calls every entry and vector, and gives their answers as the bytes of a word.</summary>
    private CodeBlock EmitAll() => Emit((s, a) =>
    {
        a.push(rbx);
        a.xor(ebx, ebx);
        foreach (CodeBlock own in _own)
        {
            a.call(own.Address.Value);
            Take();
        }

        for (int i = 0; i < Vectors; i++)
        {
            a.mov(rax, _arena.SlotsOf(_layout).Address.Value);
            a.mov(ecx, i);
            a.call(__qword_ptr[rax + rcx * 8]);
            Take();
        }

        s.Constant(a, _table, static a => a.mov(rax, 0x1122334455667788L));
        a.call(__qword_ptr[rax]);
        Take();
        a.mov(rax, rbx);
        a.shr(rax, 64 - 8 * Answers);
        a.pop(rbx);
        a.ret();

        void Take()
        {
            a.shr(rbx, 8);
            a.shl(rax, 56);
            a.or(rbx, rax);
        }
    });

    private CodeBlock Emit(Action<SiteEmitter, Assembler> write)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_layout);
        write(sites, a);
        return _arena.Emit(a, sites);
    }

    private static ulong Call(CodeBlock block) => ((delegate* unmanaged<ulong>)block.Address.Value)();

    private static byte[] Run(CodeBlock block) => BitConverter.GetBytes(Call(block))[..Answers];
}
