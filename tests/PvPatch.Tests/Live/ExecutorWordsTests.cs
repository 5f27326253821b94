using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Words that each executor has of its own, reached in one instruction behind the gs base or behind a register.</summary>
public sealed unsafe class ExecutorWordsTests
{
    private static readonly ExecutorWord s_flags = new("irq.flags", sizeof(short));
    private static readonly ExecutorWord s_count = new("count");
    private static readonly ExecutorWord s_number = new("number", sizeof(int));
    private static readonly ExecutorWord[] s_words = [s_flags, s_count, s_number];

    [Fact]
    public void Operands_are_what_the_assembler_makes_of_them()
    {
        using var code = new LiveCode();
        Assert.SkipUnless(code.Arena.CanSetGsBase, "no FSGSBASE here");
        var words = new ExecutorWords(code.Arena, s_words);
        var behind = new ExecutorWords(code.Arena, s_words, r14);
        Assert.Equal([8, 16, 24, 28], [words.OffsetOf(s_flags), words.OffsetOf(s_count), words.OffsetOf(s_number), words.Length]);

        // GNU as 2.40: mov word ptr gs:[8],0; mov word ptr gs:[8],di; movzx eax,word ptr gs:[8]; inc qword ptr gs:[16];
        // add qword ptr gs:[0],2; and with r14 for gs.
        Assert.Equal("6566c704250800000000006566893c2508000000650fb704250800000065 48ff04251000000065488304250000000002".Replace(" ", ""),
            Assemble(words));
        Assert.Equal("6641c7460800006641897e08410fb7460849ff46104983" + "0602", Assemble(behind));

        string Assemble(ExecutorWords layout)
        {
            var a = new Assembler(64);
            a.mov(layout.Operand(s_flags), 0);
            a.mov(layout.Operand(s_flags), di);
            a.movzx(eax, layout.Operand(s_flags));
            a.inc(layout.Operand(s_count));
            a.add(layout.SafepointCounter, 2);
            return Convert.ToHexStringLower(code.Arena.Emit(a).ToArray());
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Executors_on_threads_have_each_their_own_and_bodies_are_one_instruction(bool gs)
    {
        const int Threads = 4;
        const int Rounds = 20_000;
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.SkipUnless(!gs || arena.CanSetGsBase, "no FSGSBASE here");
        OpsLayout layout = OpsLayout.Create(b => b.Table("irq", t => t.Slot("disable").Slot("enable").Slot("save")));
        var words = new ExecutorWords(arena, s_words, gs ? null : r14);
        using var patcher = new LivePatcher(arena, layout);
        VirtualAddress[] functions = [Function(a => a.mov(words.Operand(s_flags), 0)), Function(a => a.mov(words.Operand(s_flags), 0x200)),
            Function(a => a.movzx(eax, words.Operand(s_flags)))];
        Backend inline = Backend.Create("inline", layout, b => b
            .Inline("irq.disable", a => a.mov(words.Operand(s_flags), 0))
            .Inline("irq.enable", a => a.mov(words.Operand(s_flags), 0x200))
            .Inline("irq.save", a => a.movzx(eax, words.Operand(s_flags))));
        Backend called = Backend.Create("called", layout, b => b
            .Call("irq.disable", functions[0], destroys: RegisterSet.None).Call("irq.enable", functions[1], destroys: RegisterSet.None)
            .Call("irq.save", functions[2], destroys: RegisterSet.Rax));
        patcher.Switch(inline);

        // long f(long rounds, void* words): how often the flag was not what this thread had made it.
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        Label loop = a.CreateLabel();
        Array.ForEach([rbx, rbp, r14], a.push);
        a.mov(rbx, rdi);
        a.mov(r14, rsi);
        a.xor(ebp, ebp);
        a.Label(ref loop);
        Site("irq.disable");
        Site("irq.save");
        a.movzx(eax, ax);
        a.add(rbp, rax);
        a.inc(words.Operand(s_count));
        Site("irq.enable");
        Site("irq.save");
        a.xor(eax, 0x200);
        a.movzx(eax, ax);
        a.add(rbp, rax);
        a.dec(rbx);
        a.jnz(loop);
        a.mov(rax, rbp);
        Array.ForEach([r14, rbp, rbx], a.pop);
        a.ret();
        CodeBlock block = arena.Emit(a, sites);
        patcher.Bind(block);
        Assert.All(Enumerable.Range(0, block.SiteCount), i => Assert.Equal(LiveForm.OneInstruction, block[i].Form));

        Executor[] executors = [.. Enumerable.Range(0, Threads).Select(t => arena.RegisterExecutor($"{t}", words))];
        long wrong = 0;
        bool stop = false;
        Thread[] threads = [.. executors.Select(e => new Thread(() =>
        {
            for (int i = 0; i < 5; i++)
            {
                e.Enter();
                Interlocked.Add(
                    ref wrong, ((delegate* unmanaged<long, ulong, long>)block.Address.Value)(Rounds, gs ? 0 : e.WordsAddress.Value));
                e.Leave();
            }
        }))];
        Exception? failure = null;
        var switcher = new Thread(() => failure = Record.Exception(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                patcher.Switch(called);
                patcher.Switch(inline);
            }
        }));
        switcher.Start();
        Array.ForEach(threads, static t => t.Start());
        Array.ForEach(threads, static t => t.Join());
        Volatile.Write(ref stop, true);
        switcher.Join();
        Assert.Null(failure);
        Assert.Equal(0, wrong);
        Assert.All(executors, e => Assert.Equal((5L * Rounds, (short)0x200), (*(long*)e.AddressOf(s_count).Value, *(short*)e.AddressOf(s_flags).Value)));
        Array.ForEach(executors, static e => e.Dispose());

        VirtualAddress Function(Action<Assembler> body)
        {
            var function = new Assembler(64);
            body(function);
            function.ret();
            return arena.Emit(function).Address;
        }

        void Site(string name) => sites.Emit(a, layout[name], budget: 12, RegisterSet.Rax, SitePlacement.InsideAligned16);
    }

    [Fact]
    public void A_load_with_an_offset_of_64_bits_is_a_body_too()
    {
        using var code = new LiveCode();
        Assert.SkipUnless(code.Arena.CanSetGsBase, "no FSGSBASE here");
        var words = new ExecutorWords(code.Arena, s_words);
        using Executor executor = code.Arena.RegisterExecutor("e", words);
        CodeBlock block = code.EmitFunction(new SiteWish(0, 12, SitePlacement.InsideAligned16));
        using LivePatcher patcher = code.Patcher(Backend.Create("words", code.Layout, b => b
            .Inline("t.first", a => a.mov(eax, words.Operand(s_number))).Nop("t.second").Nop("t.third")));
        *(int*)executor.AddressOf(s_number).Value = 77;
        executor.Enter();
        Assert.Equal(77, LiveCode.Call(block));
        executor.Leave();

        // GNU as: movabs eax,gs:24, with prefixes before it.
        Assert.EndsWith("65a11800000000000000", Convert.ToHexStringLower(block[0].ToArray()), StringComparison.Ordinal);
        Assert.Equal(LiveForm.OneInstruction, block[0].Form);
    }

    [Fact]
    public void The_gs_base_is_the_executors_inside_and_what_it_was_outside()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.SkipUnless(arena.CanSetGsBase, "no FSGSBASE here");
        var words = new ExecutorWords(arena, s_words);
        using Executor first = arena.RegisterExecutor("first", words);
        using Executor second = arena.RegisterExecutor("second", words);
        using Executor without = arena.RegisterExecutor("without");
        var a = new Assembler(64);
        a.rdgsbase(rax);
        a.ret();
        var read = (delegate* unmanaged<ulong>)arena.Emit(a).Address.Value;
        a = new Assembler(64);
        a.wrgsbase(rdi);
        a.ret();
        var write = (delegate* unmanaged<ulong, void>)arena.Emit(a).Address.Value;
        ExecutorThreadTests.OnThread(() =>
        {
            const ulong Hosts = 0x1234_5000; // the host may have a use for it
            write(Hosts);
            var seen = new List<ulong>();
            Action[] steps = [first.Enter, first.Enter, second.Enter, first.Enter, without.Enter, without.Leave, first.Leave, second.Leave,
                first.Safepoint, first.Leave, first.Safepoint, first.Leave, first.Safepoint];
            foreach (Action step in steps)
            {
                step();
                seen.Add(read());
            }

            (ulong one, ulong two) = (first.WordsAddress.Value, second.WordsAddress.Value);
            Assert.Equal([one, one, two, one, one, one, two, one, one, one, one, Hosts, Hosts], seen);
            write(0);
        });
    }

    [Fact]
    public void Signals_and_collections_leave_the_words_where_they_are()
    {
        const int Threads = 3;
        const int Window = 28; // SIGWINCH: the runtime runs a handler of its own for it
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.SkipUnless(arena.CanSetGsBase, "no FSGSBASE here");
        int handled = 0;
        using var registration = PosixSignalRegistration.Create((PosixSignal)Window, context =>
        {
            context.Cancel = true;
            Interlocked.Increment(ref handled);
        });
        var words = new ExecutorWords(arena, s_words);

        // long f(long number, long rounds): how often gs:[number] was another's.
        var a = new Assembler(64);
        Label loop = a.CreateLabel();
        a.mov(words.Operand(s_number), edi);
        a.xor(eax, eax);
        a.xor(edx, edx);
        a.Label(ref loop);
        a.inc(words.Operand(s_count));
        a.cmp(words.Operand(s_number), edi);
        a.setne(dl);
        a.add(rax, rdx);
        a.dec(rsi);
        a.jnz(loop);
        a.ret();
        var function = (delegate* unmanaged<long, long, long>)arena.Emit(a).Address.Value;
        long wrong = 0;
        int running = Threads;
        var self = new nint[Threads];
        Thread[] threads = [.. Enumerable.Range(0, Threads).Select(t => new Thread(() =>
        {
            using Executor executor = arena.RegisterExecutor($"{t}", words);
            Volatile.Write(ref self[t], ThreadOfCaller());
            for (int i = 0; i < 200; i++)
            {
                executor.Enter();
                Interlocked.Add(ref wrong, function(t + 1, 100_000));
                GC.KeepAlive(new byte[1000]);
                Interlocked.Add(ref wrong, function(t + 1, 1000));
                executor.Leave();
            }

            Interlocked.Add(ref wrong, *(long*)executor.AddressOf(s_count).Value - 200 * 101_000);
            Interlocked.Decrement(ref running);
            while (Volatile.Read(ref running) > -1)
            {
                Thread.Sleep(1); // a thread that has ended can't be sent anything
            }
        }))];
        Array.ForEach(threads, static t => t.Start());
        while (Volatile.Read(ref running) > 0)
        {
            foreach (ref nint thread in self.AsSpan())
            {
                if (Volatile.Read(ref thread) != 0)
                {
                    Assert.Equal(0, SendToThread(thread, Window));
                }
            }

            GC.Collect(0);
            Thread.Yield();
        }

        Interlocked.Exchange(ref running, -1);
        Array.ForEach(threads, static t => t.Join());
        Assert.Equal(0, wrong);
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref handled) > 0, TimeSpan.FromSeconds(30)), "no signal was handled");
    }

    [Fact]
    public void Generated_code_passes_safepoints_by_its_own_counter()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.SkipUnless(arena.CanSetGsBase, "no FSGSBASE here");
        var words = new ExecutorWords(arena, []);
        using Executor executor = arena.RegisterExecutor("e", words);
        Assert.Equal((executor.CounterAddress, sizeof(long)), (executor.WordsAddress, words.Length));
        var a = new Assembler(64);
        a.add(words.SafepointCounter, 2);
        a.ret();
        CodeBlock pass = arena.Emit(a);
        a = new Assembler(64);
        a.nop();
        CodeBlock block = arena.Emit(a);
        executor.Enter();
        arena.Retire(block);
        Assert.Equal(0, arena.Reclaim());
        ((delegate* unmanaged<void>)pass.Address.Value)();
        Assert.True(arena.Reclaim() > 0);
        Assert.True(executor.IsInside);
        executor.Leave();
    }

    [Fact]
    public void An_executor_whose_thread_ended_inside_has_its_words_on_the_next_thread()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.SkipUnless(arena.CanSetGsBase, "no FSGSBASE here");
        var words = new ExecutorWords(arena, s_words);
        using Executor executor = arena.RegisterExecutor("e", words);
        var a = new Assembler(64);
        a.inc(words.Operand(s_count));
        a.ret();
        var function = (delegate* unmanaged<void>)arena.Emit(a).Address.Value;
        for (int i = 0; i < 2; i++)
        {
            ExecutorThreadTests.OnThread(() =>
            {
                executor.Enter();
                executor.Enter();
                function();
            });
        }

        Assert.Equal(2, *(long*)executor.AddressOf(s_count).Value);
    }

    [Fact]
    public void Without_a_gs_base_it_is_said_before_anything_is_made_and_a_register_does()
    {
        using var platform = new FaultyPlatform { HasGsBase = false };
        using var code = new LiveCode(platform);
        Assert.False(code.Arena.CanSetGsBase);
        long used = code.Arena.Used;
        PatchDiagnostic error = Assert.Throws<PatchException>(() => new ExecutorWords(code.Arena, s_words)).Diagnostic;
        Assert.Equal(DiagnosticCodes.NoGsBase, error.Code);
        Assert.Contains("register", error.Help, StringComparison.Ordinal);
        Assert.Equal(used, code.Arena.Used);
        var words = new ExecutorWords(code.Arena, s_words, rbx);
        using Executor executor = code.Arena.RegisterExecutor("e", words);
        executor.Enter();
        executor.Leave();
        Assert.Equal(executor.WordsAddress + 16, executor.AddressOf(s_count));
    }

    [Fact]
    public void Misuse_is_refused()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        foreach (ExecutorWord[] wrong in (ExecutorWord[][])[[new("a", 3)], [new("a", 0)], [new("a", 16)], [new("")], [default],
            [new("a"), new("a", 4)], [.. Enumerable.Range(0, 512).Select(static i => new ExecutorWord($"{i}"))]])
        {
            Assert.Throws<ArgumentException>(() => new ExecutorWords(code.Arena, wrong, r14));
        }

        Assert.Equal(
            ExecutorWords.MaxLength, new ExecutorWords(code.Arena, [.. Enumerable.Range(1, 511).Select(static i => new ExecutorWord($"{i}"))], r14).Length);
        Assert.Throws<ArgumentException>(() => new ExecutorWords(code.Arena, s_words, rsp));
        var words = new ExecutorWords(code.Arena, s_words, r14);
        Assert.Throws<ArgumentException>(() => words.Operand(new ExecutorWord("count", 4)));
        Assert.Throws<ArgumentException>(() => other.Arena.RegisterExecutor("e", words));
        using Executor without = code.Arena.RegisterExecutor();
        Assert.Null(without.Words);
        Assert.Throws<ArgumentException>(() => without.AddressOf(s_count));
    }

    [DllImport("libc", EntryPoint = "pthread_self")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern nint ThreadOfCaller();

    [DllImport("libc", EntryPoint = "pthread_kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SendToThread(nint thread, int signal);
}
