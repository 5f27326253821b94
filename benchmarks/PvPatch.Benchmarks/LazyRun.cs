using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using PvPatch.LazyModes;

namespace PvPatch.Benchmarks;

/// <summary>
/// The mode <c>lazy</c>: hypercalls per remap and per context switch, put off against made at once; what it costs to put a call off. Counts
/// are the same in every run; times are minima of rounds in which all ways take turns.
/// </summary>
internal static class LazyRun
{
    private const int CallsARound = 31 * 64;

    private static readonly (string Name, LazyPolicy Policy)[] s_hypervisors =
    [
        ("Xen", LazyPolicy.Xen),
        ("VMI, a ROM that queues 64 calls", LazyPolicy.Vmi with { Capacity = 64, DefersIn = LazyMode.Mmu | LazyMode.Cpu }),
        ("lguest", LazyPolicy.Lguest),
        ("KVM", LazyPolicy.Kvm),
    ];

    private static long s_sum;

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 2_000;
        if (arguments is not [] && !(arguments is ["--rounds", string value]
            && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0))
        {
            Console.Error.WriteLine("usage: lazy [--rounds N]");
            return 2;
        }

        bool met = Count();
        met &= Time(rounds);
        Console.WriteLine(met ? "all goals met" : "GOALS MISSED");
        return met ? 0 : 1;
    }

    // A remap moves a range of entries: each is cleared and set, then the TLB is flushed. The other column only sets them.
    private static bool Count()
    {
        bool met = true;
        Console.WriteLine("hypercalls, made at once / put off (ratio)");
        foreach ((string name, LazyPolicy policy) in s_hypervisors)
        {
            foreach (int entries in (ReadOnlySpan<int>)[32, 128, 512])
            {
                (int sets, int setsOff) = (Remap(policy, entries, false, false), Remap(policy, entries, true, false));
                (int once, int off) = (Remap(policy, entries, false, true), Remap(policy, entries, true, true));
                bool isMet = once >= 20 * off;
                met &= isMet;
                Console.WriteLine(
                    $"  {name}: {entries} entries set {sets} / {setsOff} ({Ratio(sets, setsOff)}), "
                    + $"remapped {once} / {off} ({Ratio(once, off)})" + (isMet ? "" : ", goal 20: MISSED"));
            }

            (int switchOnce, int switchOff) = (Switch(policy, false), Switch(policy, true));
            Console.WriteLine($"  {name}: context switch {switchOnce} / {switchOff} ({Ratio(switchOnce, switchOff)})");
        }

        return met;
    }

    private static string Ratio(int once, int off) => ((double)once / off).ToString("0.0", CultureInfo.InvariantCulture);

    private static int Remap(LazyPolicy policy, int entries, bool putOff, bool moves)
    {
        var sink = new CountingSink();
        var cpu = new LazyCpu<Request>(0, policy, sink);
        bool hasRecords = policy.ArgumentBytes == LazyPolicy.Kvm.ArgumentBytes;
        int update = policy.ArgumentBytes == 0 ? 0 : hasRecords ? 24 : 16;
        int flush = policy.ArgumentBytes == 0 ? 0 : hasRecords ? 8 : 24;
        Span<byte> arguments = stackalloc byte[24];
        if (putOff)
        {
            cpu.Enter(LazyMode.Mmu, 1);
        }

        for (int i = 0; i < entries; i++)
        {
            for (int step = moves ? 0 : 1; step < 2; step++)
            {
                cpu.Queue(new Request(Request.SetPte), arguments[..update], LazyMode.Mmu, 2);
            }
        }

        if (moves)
        {
            cpu.Queue(new Request(Request.FlushTlb), arguments[..flush], LazyMode.Mmu, 3);
        }

        if (putOff)
        {
            cpu.Leave(LazyMode.Mmu, 4);
        }

        return sink.Hypercalls;
    }

    // Page-table base, kernel stack, three descriptors of the thread's own: what Linux asks for at a switch.
    private static int Switch(LazyPolicy policy, bool putOff)
    {
        var sink = new CountingSink();
        var cpu = new LazyCpu<Request>(0, policy, sink);
        var task = new LazyTask("task");
        if (putOff)
        {
            cpu.StartContextSwitch(task, 1);
        }

        for (int i = 0; i < 5; i++)
        {
            cpu.Queue(new Request(Request.CpuState), [], LazyMode.Cpu, 2);
        }

        if (putOff)
        {
            cpu.EndContextSwitch(task, 3);
        }

        return sink.Hypercalls;
    }

    private static bool Time(int rounds)
    {
        var sink = new CountingSink();
        var cpu = new LazyCpu<Request>(0, LazyPolicy.Xen, sink);
        (string Name, Action Work)[] ways =
        [
            ("a method called", Direct),
            ("a call of the queue made at once", () => AtOnce(cpu)),
            ("put off, no arguments, and made with 30 others", () => PutOff(cpu, 0, Request.CpuState)),
            ("put off, 16 bytes, and made with 30 others", () => PutOff(cpu, 16, Request.CpuState)),
            ("put off as part of the last call, 16 bytes", () => PutOff(cpu, 16, Request.SetPte)),
        ];
        double[] least = new double[ways.Length];
        Array.Fill(least, double.MaxValue);
        long allocated = 0;
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < ways.Length; i++)
            {
                int way = (i + round) % ways.Length;
                long bytes = GC.GetAllocatedBytesForCurrentThread();
                long start = Stopwatch.GetTimestamp();
                ways[way].Work();
                double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / CallsARound;
                least[way] = Math.Min(least[way], time);
                allocated += round < rounds / 2 ? 0 : GC.GetAllocatedBytesForCurrentThread() - bytes;
            }
        }

        Console.WriteLine($"ns a call, least of {rounds} rounds (to a method called)");
        for (int i = 0; i < ways.Length; i++)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"  {ways[i].Name}: {least[i]:0.0} ({least[i] / least[0]:0.0})"));
        }

        Console.WriteLine($"bytes allocated: {allocated}");
        return allocated == 0;
    }

    private static void Direct()
    {
        for (int i = 0; i < CallsARound; i++)
        {
            Hypercall(new Request(Request.CpuState), 0, 2);
        }
    }

    private static void AtOnce(LazyCpu<Request> cpu)
    {
        for (int i = 0; i < CallsARound; i++)
        {
            cpu.Queue(new Request(Request.CpuState), [], LazyMode.Mmu, 2);
        }
    }

    private static void PutOff(LazyCpu<Request> cpu, int bytes, int kind)
    {
        ReadOnlySpan<byte> arguments = stackalloc byte[bytes];
        for (int i = 0; i < CallsARound; i += 31)
        {
            cpu.Enter(LazyMode.Mmu, 1);
            for (int j = 0; j < 31; j++)
            {
                cpu.Queue(new Request(kind), arguments, LazyMode.Mmu, 2);
            }

            cpu.Leave(LazyMode.Mmu, 3);
        }
    }

    // The least a host's hypercall can be: a call that is not inlined.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static long Hypercall(Request request, int bytes, ulong site)
    {
        s_sum += request.Kind + bytes + (long)site;
        return 0;
    }

    private readonly record struct Request(int Kind, int Length = 1)
    {
        public const int SetPte = 1;
        public const int FlushTlb = 2;
        public const int CpuState = 3;
    }

    private sealed class CountingSink : IHypercallSink<Request>
    {
        public int Hypercalls { get; private set; }

        public void Call(HypercallBatch<Request> batch)
        {
            Hypercalls++;
            while (batch.Count > 0)
            {
                batch.Complete(Hypercall(batch.Calls[0], batch.ArgumentsOf(0).Length, batch.SiteOf(0).Value));
            }
        }

        public void Failed(in Request call, long result, VirtualAddress site) => throw new InvalidOperationException();

        public bool TryExtend(ref Request last, in Request next)
        {
            if (last.Kind != Request.SetPte || next.Kind != Request.SetPte)
            {
                return false;
            }

            last = last with { Length = last.Length + 1 };
            return true;
        }
    }
}
