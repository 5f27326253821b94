using System.Globalization;
using PvPatch.LazyModes;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.LazyModes;

/// <summary>
/// Random steps on several CPUs, right and wrong ones, with interrupts at every step and a hypervisor that takes part of what it is given,
/// throws and fails calls: CPUs do, refuse and keep what the model says.
/// </summary>
public sealed class LazyModelTests
{
    private const int Runs = 300;
    private const int Steps = 120;

    public static TheoryData<string> Policies =>
        ["xen", "xen strict", "xen uncounted", "vmi", "lguest", "lguest strict", "kvm", "kvm counted", "any"];

    [Theory]
    [MemberData(nameof(Policies))]
    public void A_cpu_does_what_the_model_says(string policy)
    {
        int seed = TestSeed.Value;
        int refused = 0;
        for (int run = 0; run < Runs; run++)
        {
            var random = new Random(seed + run);
            refused += Run(Policy(policy, random), random, $"{TestSeed.Name}, run {run}");
        }

        Assert.True(refused > Runs, $"only {refused} steps were refused: what is tested?");
    }

    [Fact]
    public void An_interrupt_at_every_step_of_a_batch_changes_only_when_calls_are_made()
    {
        // The same program with an interrupt before each of its steps in turn: the calls come in the same order, that of the interrupt
        // between them.
        const int Length = 12;
        for (int at = 0; at <= Length; at++)
        {
            var sink = new TestSink();
            var cpu = new LazyCpu<TestCall>(0, LazyPolicy.Xen, sink);
            var task = new LazyTask("task");
            List<int> expected = [];
            for (int step = 0; step < Length; step++)
            {
                Interrupt(step);
                switch (step)
                {
                    case 0 or 6:
                        cpu.Enter(LazyMode.Mmu, 1);
                        break;
                    case 7:
                        cpu.StartContextSwitch(task, 2);
                        break;
                    case 9:
                        cpu.EndContextSwitch(task, 3);
                        break;
                    case 4 or 11:
                        cpu.Leave(LazyMode.Mmu, 4);
                        break;
                    default:
                        cpu.Queue(new TestCall(step), [], LazyMode.Mmu | LazyMode.Cpu, 5);
                        expected.Add(step);
                        break;
                }
            }

            Interrupt(Length);
            Assert.Equal(0, cpu.Count);
            IEnumerable<string> made = sink.Log.SelectMany(static line => line.Split(' ').Skip(1));
            Assert.Equal(expected, made.Select(static id => int.Parse(id, CultureInfo.InvariantCulture)));

            void Interrupt(int step)
            {
                if (step == at)
                {
                    LazyMode before = cpu.Mode;
                    cpu.EnterInterrupt(6);
                    Assert.Equal(LazyMode.None, cpu.Mode);
                    cpu.Queue(new TestCall(100), [], LazyMode.Mmu, 7);
                    expected.Add(100);
                    Assert.Equal(0, cpu.Count);
                    cpu.LeaveInterrupt(8);
                    Assert.Equal(before, cpu.Mode);
                }
            }
        }
    }

    private static LazyPolicy Policy(string name, Random random) => name switch
    {
        "xen" => LazyPolicy.Xen with { Capacity = 6, Callbacks = 4, ArgumentBytes = 100 },
        "xen strict" => (LazyPolicy.Xen with { Capacity = 6, Callbacks = 4 }).Strict(),
        "xen uncounted" => LazyPolicy.Xen with { CountsNesting = false, Capacity = 7 },
        "vmi" => LazyPolicy.Vmi,
        "lguest" => LazyPolicy.Lguest with { Capacity = 8 },
        "lguest strict" => (LazyPolicy.Lguest with { Capacity = 8 }).Strict(),
        "kvm" => LazyPolicy.Kvm with { ArgumentBytes = 64 },
        "kvm counted" => LazyPolicy.Kvm with { ArgumentBytes = 64, CountsNesting = true },
        _ => new LazyPolicy
        {
            Name = "any",
            Capacity = random.Next(5),
            ArgumentBytes = random.Next(64),
            ArgumentAlignment = 1 << random.Next(5),
            Callbacks = random.Next(3),
            DefersIn = (LazyMode)random.Next(4),
            CountsNesting = random.Next(2) == 0,
            ParksModes = random.Next(2) == 0,
            RefusesObservers = random.Next(2) == 0,
            Extends = random.Next(2) == 0,
            KeepsOrder = random.Next(2) == 0,
            OverflowIsMade = random.Next(2) == 0,
            LeaveAlwaysCalls = random.Next(2) == 0,
            TellsMode = random.Next(2) == 0,
        },
    };

    // Returns how many steps were refused.
    private static int Run(LazyPolicy policy, Random random, string where)
    {
        // One batch in eight is taken in part, one in sixteen not at all or with an exception.
        int salt = random.Next();
        HypervisorMood Mood(int batch) => unchecked((uint)(salt + batch) * 2654435761u) >> 28 is uint mood && salt % 2 == 0
            ? mood switch
            {
                0 => new HypervisorMood(0, false),
                1 => new HypervisorMood((int)(mood % 4) + 1, true),
                2 or 3 => new HypervisorMood(2, false),
                _ => new HypervisorMood(4, false),
            }
            : new HypervisorMood(4, false);

        var model = new ModelHypervisor(Mood);
        LazyModel[] models = [new(policy, model), new(policy, model), new(policy, model)];
        var sink = new TestSink { Result = ModelHypervisor.Result };
        int batches = 0;
        sink.Action = batch =>
        {
            HypervisorMood mood = Mood(batches++);
            sink.Take(batch, mood.Takes(batch.Count));
            if (mood.Throws)
            {
                throw new InvalidDataException();
            }
        };
        LazyCpu<TestCall>[] cpus = [new(0, policy, sink), new(1, policy, sink), new(2, policy, sink)];
        LazyTask[] tasks = [new("a"), new("b"), new("c"), new("d")];
        ModelTask[] modelTasks = [new(), new(), new(), new()];
        int refused = 0;
        for (int step = 0; step < Steps; step++)
        {
            int at = random.Next(cpus.Length);
            int task = random.Next(tasks.Length);
            LazyMode mode = random.Next(4) == 0 ? LazyMode.Cpu : LazyMode.Mmu;
            var call = new TestCall(step, IsArray: random.Next(3) == 0);
            int bytes = random.Next(8) == 0 ? random.Next(70) : random.Next(Math.Min(policy.ArgumentBytes, 24) + 1);
            int kind = random.Next(20);
            bool preemptible = random.Next(4) == 0;
            string? expected = kind switch
            {
                0 or 1 => models[at].Enter(mode),
                2 or 3 => models[at].Leave(mode),
                4 or 5 => models[at].Start(modelTasks[task]),
                6 or 7 => models[at].End(modelTasks[task]),
                8 => models[at].EnterInterrupt(),
                9 or 10 => models[at].LeaveInterrupt(),
                11 => models[at].Add(call, bytes),
                12 => models[at].Issue(mode),
                13 => models[at].OnFlush($"f{step}"),
                14 => models[at].FlushNow(FlushReason.Requested),
                15 => models[at].FlushNow(FlushReason.Observed),
                16 => null,
                _ => models[at].Queue(call, bytes, mode),
            };
            string? found = Code(() =>
            {
                LazyCpu<TestCall> cpu = cpus[at];
                switch (kind)
                {
                    case 0 or 1:
                        cpu.Enter(mode, 1);
                        break;
                    case 2 or 3:
                        cpu.Leave(mode, 2);
                        break;
                    case 4 or 5:
                        cpu.StartContextSwitch(tasks[task], 3);
                        break;
                    case 6 or 7:
                        cpu.EndContextSwitch(tasks[task], 4);
                        break;
                    case 8:
                        cpu.EnterInterrupt(5);
                        break;
                    case 9 or 10:
                        cpu.LeaveInterrupt(6);
                        break;
                    case 11:
                        cpu.Add(call, new byte[bytes], 7);
                        break;
                    case 12:
                        cpu.Issue(mode, 8);
                        break;
                    case 13:
                        cpu.OnFlush(s => sink.Log.Add((string)s!), $"f{step}", 9);
                        break;
                    case 14:
                        cpu.Flush(10);
                        break;
                    case 15:
                        cpu.Observe(11);
                        break;
                    case 16:
                        cpu.IsPreemptible = preemptible;
                        models[at].Preemptible = preemptible;
                        break;
                    default:
                        cpu.Queue(call, new byte[bytes], mode, 12);
                        break;
                }
            });
            refused += expected is null ? 0 : 1;
            string place = $"{where}, step {step} of kind {kind} on CPU {at}, {policy}";
            Assert.True(expected == found, $"{place}: {found ?? "done"}, but the model says {expected ?? "done"}");
            string[] log = [.. sink.TakeLog().Select(static l => l.EndsWith(" 0x00000007", StringComparison.Ordinal)
                || l.EndsWith(" 0x0000000c", StringComparison.Ordinal) ? l[..^11] : l)];
            Assert.True(model.Log.SequenceEqual(log), $"{place}: [{string.Join("; ", log)}], not [{string.Join("; ", model.Log)}]");
            model.Log.Clear();
            (LazyMode, int, int) state = (cpus[at].Mode, cpus[at].Count, cpus[at].Depth);
            Assert.True(state == (models[at].Mode, models[at].Count, models[at].Levels), $"{place}: {state}");
            Assert.True(tasks[task].Parked == modelTasks[task].Parked, $"{place}: {tasks[task].Parked} parked");
        }

        return refused;
    }

    private static string? Code(Action action)
    {
        try
        {
            action();
            return null;
        }
        catch (PatchException exception)
        {
            return exception.Diagnostic.Code;
        }
    }
}
