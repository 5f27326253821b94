using PvPatch.LazyModes;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.LazyModes;

/// <summary>
/// Order of effects: a guest that writes memory through calls that may be put off must never see anything but what it would see if each
/// call were made at once. Whatever flushes late, loses or reorders calls is found; that it is, the controls prove.
/// </summary>
public sealed class EffectOrderTests
{
    private const int Words = 8;
    private const int Programs = 400;
    private const int Steps = 60;

    private static readonly LazyPolicy s_ordered = LazyPolicy.Kvm with { Name = "KVM queue in order", KeepsOrder = true };

    public static TheoryData<string> Ordered => ["xen", "xen, 3 calls", "xen uncounted", "vmi", "lguest", "kvm in order"];

    [Theory]
    [MemberData(nameof(Ordered))]
    public void A_guest_sees_what_it_would_see_without_batching(string policy) =>
        Assert.Null(FirstDifference(policy, static memory => new HonestSink(memory)));

    [Theory]
    [MemberData(nameof(Ordered))]
    public void A_hypervisor_that_makes_calls_late_is_found(string policy) =>
        Assert.NotNull(FirstDifference(policy, static memory => new LateSink(memory)));

    [Theory]
    [InlineData("xen")]
    [InlineData("xen, 3 calls")]
    [InlineData("lguest")]
    public void A_hypervisor_that_makes_a_batch_backwards_is_found(string policy) =>
        Assert.NotNull(FirstDifference(policy, static memory => new BackwardsSink(memory)));

    [Theory]
    [InlineData("xen")]
    [InlineData("lguest")]
    [InlineData("kvm in order")]
    public void An_observer_that_does_not_say_so_is_found(string policy) =>
        Assert.NotNull(FirstDifference(policy, static memory => new HonestSink(memory), observes: false));

    [Fact]
    public void A_call_that_overtakes_those_queued_as_under_kvm_is_found() =>
        Assert.NotNull(FirstDifference("kvm", static memory => new HonestSink(memory)));

    private static LazyPolicy Policy(string name) => name switch
    {
        "xen" => LazyPolicy.Xen,
        "xen, 3 calls" => LazyPolicy.Xen with { Capacity = 3, ArgumentBytes = 40 },
        "xen uncounted" => LazyPolicy.Xen with { CountsNesting = false },
        "vmi" => LazyPolicy.Vmi,
        "lguest" => LazyPolicy.Lguest,
        "kvm" => LazyPolicy.Kvm,
        _ => s_ordered,
    };

    /// <summary>Runs programs of random steps and compares what they see; null where nothing differs.</summary>
    private static string? FirstDifference(
        string policy, Func<int[], IHypercallSink<Write>> makeSink, bool observes = true)
    {
        int seed = TestSeed.Value;
        for (int program = 0; program < Programs; program++)
        {
            if (Run(Policy(policy), makeSink, new Random(seed + program), observes) is string difference)
            {
                return $"program {program}: {difference}";
            }
        }

        return null;
    }

    private static string? Run(LazyPolicy policy, Func<int[], IHypercallSink<Write>> makeSink, Random random, bool observes)
    {
        int[] memory = new int[Words];
        int[] atOnce = new int[Words];
        IHypercallSink<Write> sink = makeSink(memory);
        LazyCpu<Write>[] cpus = [new(0, policy, sink), new(1, policy, sink)];
        LazyTask[] tasks = [new("a"), new("b"), new("c")];
        int[] running = [0, 1];
        int waiting = 2;
        for (int step = 0; step < Steps; step++)
        {
            int index = random.Next(cpus.Length);
            LazyCpu<Write> cpu = cpus[index];
            switch (random.Next(10))
            {
                case 0 when cpu.Mode == LazyMode.None:
                    cpu.Enter(LazyMode.Mmu, 1);
                    break;
                case 1 when cpu.Mode == LazyMode.Mmu:
                    cpu.Leave(LazyMode.Mmu, 2);
                    break;
                case 2:
                    // A word each: CPUs that share one have a lock, and leave their mode before they give it back.
                    cpu.StartContextSwitch(tasks[running[index]], 3);
                    Put(cpu, index, LazyMode.Cpu);
                    (running[index], waiting) = (waiting, running[index]);
                    cpu.EndContextSwitch(tasks[running[index]], 4);
                    break;
                case 3:
                    cpu.EnterInterrupt(5);
                    Put(cpu, index, LazyMode.Mmu);
                    cpu.LeaveInterrupt(6);
                    break;
                case 4:
                    Put(cpu, index, LazyMode.None);
                    break;
                case 5:
                    if (observes)
                    {
                        cpu.Observe(7);
                    }

                    for (int word = index; word < Words; word += cpus.Length)
                    {
                        if (memory[word] != atOnce[word])
                        {
                            return $"step {step}: CPU {index} sees {memory[word]} for {atOnce[word]} in word {word}";
                        }
                    }

                    break;
                default:
                    Put(cpu, index, LazyMode.Mmu);
                    break;
            }

            // Outside every mode nothing may be left.
            if (cpu.Mode == LazyMode.None && !Same(index))
            {
                return $"step {step}: CPU {index} is in no mode, and calls of its are not made";
            }
        }

        return null;

        bool Same(int cpu)
        {
            for (int word = cpu; word < Words; word += cpus.Length)
            {
                if (memory[word] != atOnce[word])
                {
                    return false;
                }
            }

            return true;
        }

        void Put(LazyCpu<Write> cpu, int index, LazyMode deferredIn)
        {
            // Additions and multiplications do not commute: order counts, not only what was written last.
            var write = new Write(index + (cpus.Length * random.Next(Words / cpus.Length)), random.Next(2) == 0, random.Next(3, 9));
            write.Apply(atOnce);
            cpu.Queue(write, stackalloc byte[Math.Min(cpu.Policy.ArgumentBytes, random.Next(17))], deferredIn, 8);
        }
    }

    /// <summary>A call: a word of memory is changed.</summary>
    private readonly record struct Write(int Word, bool Adds, int Operand)
    {
        public void Apply(int[] memory) => memory[Word] = unchecked(Adds ? memory[Word] + Operand : memory[Word] * Operand);
    }

    private class HonestSink(int[] memory) : IHypercallSink<Write>
    {
        protected int[] Memory => memory;

        public virtual void Call(HypercallBatch<Write> batch)
        {
            while (batch.Count > 0)
            {
                batch.Calls[0].Apply(memory);
                batch.Complete(0);
            }
        }

        public void Failed(in Write call, long result, VirtualAddress site)
        {
        }
    }

    /// <summary>Makes the last call of a batch with the next batch.</summary>
    private sealed class LateSink(int[] memory) : HonestSink(memory)
    {
        private Write? _held;

        public override void Call(HypercallBatch<Write> batch)
        {
            while (batch.Count > 0)
            {
                _held?.Apply(Memory);
                _held = batch.Calls[0];
                batch.Complete(0);
            }
        }
    }

    private sealed class BackwardsSink(int[] memory) : HonestSink(memory)
    {
        public override void Call(HypercallBatch<Write> batch)
        {
            Write[] calls = batch.Calls.ToArray();
            foreach (Write call in calls.Reverse())
            {
                call.Apply(Memory);
                batch.Complete(0);
            }
        }
    }
}
