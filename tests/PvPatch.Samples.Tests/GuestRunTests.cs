using System.Buffers.Binary;
using System.Globalization;
using PvGuest;
using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.Paravirt;
using PvPatch.Tests.Support;

namespace PvPatch.Samples.Tests;

/// <summary>The sample guest on every machine: it does the same work, at the cost that the table says.</summary>
public sealed class GuestRunTests
{
    private const int Pages = 32;
    private const int Tasks = 4;

    private static readonly Dictionary<int, GuestImage> s_images = new()
    {
        [32] = GuestKernel.Assemble(32),
        [64] = GuestKernel.Assemble(64),
    };

    public static TheoryData<int, string> Machines => [
        (32, "native"), (32, "xen"), (32, "kvm"), (32, "lguest"), (32, "vmi"), (64, "native"), (64, "xen"), (64, "kvm")];

    public GuestRunTests() => RequireEmulator();

    internal static void RequireEmulator() => Require.Tool(EmulatedCpu.IsAvailable, EmulatedCpu.Library, "libunicorn2");

    internal static GuestImage Image(int bitness) => s_images[bitness];

    [Theory]
    [InlineData(32, 16)]
    [InlineData(64, 10)]
    public void every_machine_does_the_same_work(int bitness, int runs)
    {
        List<ReportLine> lines = Report.Measure(Image(bitness));
        Assert.Equal(runs, lines.Count);
        string expected = ExpectedOutput(GuestRun.DefaultTicks);
        foreach (ReportLine line in lines)
        {
            Assert.Equal(expected, line.Run.Output);
            CheckPageTables(line.Run, GuestRun.DefaultTicks);
            Assert.True(lines[0].Run.PageTables.AsSpan().SequenceEqual(line.Run.PageTables), line.ToString());
        }
    }

    [Fact]
    public void what_is_written_is_the_same_each_time_and_the_readme_has_it()
    {
        (string first, string second) = (Run(), Run());
        Assert.Equal(first, second);
        string table = string.Join('\n', first.Split('\n').Where(l => l.StartsWith('|')));
        string readme = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Guest.README.md")).ReplaceLineEndings("\n");
        Assert.Contains(table, readme, StringComparison.Ordinal);
        Assert.Contains(ExpectedOutput(GuestRun.DefaultTicks), readme, StringComparison.Ordinal);

        static string Run()
        {
            using var output = new StringWriter { NewLine = "\n" };
            Assert.Equal(0, Report.Run(output, TextWriter.Null, hasEmulator: true));
            return output.ToString();
        }
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void a_batched_remap_leaves_the_guest_twenty_times_less_often(int bitness, string name)
    {
        long[] patched = Exits(Patching.Patched, isRemap: true);
        long[] batched = Exits(Patching.Batched, isRemap: true);
        Assert.Equal(3, patched.Length);
        Assert.Equal(3, batched.Length);
        if (name == "native")
        {
            Assert.Equal([0, 0, 0], batched);
            return;
        }

        // Two entries a page and a flush of translations; Xen puts 31 of them into a batch, KVM 42, lguest and VMI 64.
        Assert.All(patched, e => Assert.Equal(65, e));
        Assert.All(batched, e => Assert.Equal(name == "xen" ? 3 : 2, e));
        Assert.All(patched.Zip(batched), e => Assert.True(e.First >= 20 * e.Second));

        long[] switches = Exits(Patching.Batched, isRemap: false);
        Assert.NotEmpty(switches);
        Assert.All(switches, e => Assert.Equal(1, e));
        Assert.All(Exits(Patching.Patched, isRemap: false), e => Assert.Equal(name == "kvm" ? 1 : 3, e));

        long[] Exits(Patching patching, bool isRemap) =>
            [.. RunOn(bitness, name, patching, ticks: 0).Phases.Where(p => p.IsRemap == isRemap).Select(p => p.Exits)];
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void patching_takes_every_call_through_the_table_away(int bitness, string name)
    {
        Costs before = RunOn(bitness, name, Patching.None).Costs;
        Costs after = RunOn(bitness, name, Patching.Patched).Costs;
        Assert.True(before.ThroughTable > 1000);
        Assert.Equal(0, after.ThroughTable);
        Assert.True(after.Instructions < before.Instructions);
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void every_body_of_every_backend_is_executed(int bitness, string name)
    {
        var seen = new HashSet<string>();
        foreach ((string what, StandardBackendOptions? options) in Variants(bitness, name))
        {
            GuestRun run = GuestRun.Of(Image(bitness), Hypervisor.Create(name, bitness), Patching.Batched, options: options);
            Assert.Equal(ExpectedOutput(GuestRun.DefaultTicks), run.Output);
            Assert.NotEmpty(run.Bodies);
            Assert.All(run.Bodies, b => Assert.True(b.Value, $"{name} {what}: the body of {b.Key} was not executed"));
            seen.UnionWith(run.Bodies.Keys);
        }

        string[] native = bitness == 32
            ? [
                "cpu.clts", "cpu.iret", "cpu.irq_enable_sysexit", "cpu.read_tsc", "irq.irq_disable", "irq.irq_enable", "irq.restore_fl",
                "irq.save_fl", "lock.queued_spin_unlock", "lock.vcpu_is_preempted", "mmu.read_cr2", "mmu.read_cr3", "mmu.write_cr3",
            ]
            : [
                "cpu.clts", "cpu.iret", "cpu.irq_enable_syscall_ret", "cpu.irq_enable_sysexit", "cpu.swapgs", "cpu.usergs_sysret32",
                "cpu.usergs_sysret64", "cpu.wbinvd", "irq.irq_disable", "irq.irq_enable", "irq.restore_fl", "irq.save_fl",
                "lock.queued_spin_unlock", "lock.vcpu_is_preempted", "mmu.flush_tlb_single", "mmu.read_cr2", "mmu.read_cr3",
                "mmu.write_cr3",
            ];
        string[] interrupts = ["irq.irq_disable", "irq.irq_enable", "irq.restore_fl", "irq.save_fl"];
        string[] expected = name switch
        {
            "native" or "kvm" => native,
            "xen" => [.. interrupts, "lock.queued_spin_unlock", "lock.vcpu_is_preempted"],
            "vmi" => ["cpu.iret", "cpu.irq_enable_sysexit", .. interrupts],
            _ => interrupts,
        };
        Assert.Equal(expected, seen.Order(StringComparer.Ordinal));
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void the_guests_batches_are_those_of_the_librarys_lazy_modes(int bitness, string name)
    {
        foreach (Patching patching in Enum.GetValues<Patching>())
        {
            GuestRun run = RunOn(bitness, name, patching);
            Assert.Equal(name != "native", run.Batches.Count > 0);
            Assert.Equal(run.ModelBatches, run.Batches);
        }
    }

    [Fact]
    public void interrupts_may_come_anywhere()
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper!.WriteLine($"seed {seed}");
        var random = new Random(seed);
        const int Ticks = 150;
        foreach (int bitness in (int[])[32, 64])
        {
            byte[]? tables = null;
            foreach (Hypervisor hypervisor in Hypervisor.All(bitness))
            {
                // A period that no loop of the guest has: in ten runs the ticks come at some thousand different places.
                for (int i = 0; i < 10; i++)
                {
                    int period = random.Next(100, 500);
                    GuestRun run = GuestRun.Of(
                        Image(bitness), Hypervisor.Create(hypervisor.Name, bitness), Patching.Batched, ticks: Ticks, period: period);
                    Assert.Equal(ExpectedOutput(Ticks), run.Output);
                    Assert.Equal(run.ModelBatches, run.Batches);
                    Assert.True((tables ??= run.PageTables).AsSpan().SequenceEqual(run.PageTables), $"{hypervisor.Name}, period {period}");
                }
            }
        }
    }

    private static GuestRun RunOn(int bitness, string name, Patching patching, int ticks = GuestRun.DefaultTicks) =>
        GuestRun.Of(Image(bitness), Hypervisor.Create(name, bitness), patching, ticks: ticks);

    // What guests of one hypervisor disagree on, as far as bodies go.
    private static IEnumerable<(string What, StandardBackendOptions? Options)> Variants(int bitness, string name)
    {
        yield return ("as the sample has it", null);
        if (name == "lguest")
        {
            var early = new LguestOptions { LguestData = Lguest.LguestData, InlineEnableAndRestore = true };
            yield return ("2.6.30", new StandardBackendOptions { Lguest = early });
        }

        if (name != "xen")
        {
            yield break;
        }

        XenOptions options = Xen.Options(bitness);
        foreach (XenDirectForm form in Enum.GetValues<XenDirectForm>().Where(f => bitness == 32 || f != XenDirectForm.AndWord))
        {
            foreach (bool perCpu in (bool[])[true, false])
            {
                VirtualAddress info = perCpu ? options.DirectBodies!.VcpuInfo : XenFunctions.VcpuInfo;
                var bodies = new XenDirectBodies { VcpuInfo = info, Form = form, PerCpu = perCpu };
                yield return ($"{form} {perCpu}", new StandardBackendOptions { Xen = options with { DirectBodies = bodies } });
            }
        }
    }

    /// <summary>What three tasks with memory of their own read in the end, worked out without page tables.</summary>
    private static string ExpectedOutput(int ticks)
    {
        var text = new System.Text.StringBuilder();
        int faults = 0;
        for (int task = 1; task < Tasks; task++)
        {
            uint[] pages = [.. Enumerable.Range(0, Pages).Select(p => 0x1000u + (uint)p)];
            foreach (int step in Enumerable.Range(0, GuestKernel.Steps))
            {
                ref uint page = ref pages[((5 * step) + (3 * task)) % Pages];
                faults += page is >= 0x1000 and < 0x1000 + Pages ? 1 : 0; // the first store to it
                page = (page << 4) + (uint)(task + step);
            }

            uint digest = pages.Aggregate(0u, (d, p) => unchecked((d * 31) + p));
            Line($"task {task} reads", digest);
        }

        Line("ticks", (uint)ticks);
        Line("switches", 44); // four tasks by turns, eleven times
        Line("page faults", (uint)faults);
        Line("system calls", 3 * (uint)GuestKernel.Steps);
        Line("counted", (uint)(ticks + (GuestKernel.Steps * (1 + 2 + 3))));
        Line("clock errors", 0);
        return text.ToString();

        void Line(string what, uint value) =>
            text.Append(what.PadRight(14)).Append(value.ToString("x8", CultureInfo.InvariantCulture)).Append('\n');
    }

    /// <summary>Pages that a task wrote to are its own and can be written; the others are the first task's and cannot.</summary>
    private static void CheckPageTables(GuestRun run, int ticks)
    {
        ulong[][] entries = [.. Enumerable.Range(0, Tasks).Select(task => EntriesOf(run, task))];
        var frames = new HashSet<ulong>();
        for (int task = 1; task < Tasks; task++)
        {
            int[] written = [.. Enumerable.Range(0, GuestKernel.Steps).Select(step => ((5 * step) + (3 * task)) % Pages)];
            for (int page = 0; page < Pages; page++)
            {
                ulong shared = entries[0][page];
                Assert.Equal(0x65UL, shared & 0xfff); // present, user, accessed, dirty
                if (!written.Contains(page))
                {
                    Assert.Equal(shared, entries[task][page]);
                    continue;
                }

                Assert.Equal(0x67UL, entries[task][page] & 0xfff); // and writable
                Assert.True(frames.Add(entries[task][page]));
                Assert.NotEqual(shared & ~0xfffUL, entries[task][page] & ~0xfffUL);
            }
        }

        Assert.Equal(0x700067UL + ((ulong)(ticks & 3) << 12), entries[0][Pages]); // the clock's page
    }

    // A task's tables lie behind each other, the root first: four with 512 entries, or two with 1,024.
    private static ulong[] EntriesOf(GuestRun run, int task)
    {
        ReadOnlySpan<byte> tables = run.PageTables;
        int word = run.Bitness / 8;
        int count = word == 8 ? 4 : 2;
        int last = ((task * count) + count - 1) * 0x1000;
        var entries = new ulong[Pages + 1];
        for (int page = 0; page <= Pages; page++)
        {
            ReadOnlySpan<byte> entry = tables[(last + (page * word))..];
            entries[page] = word == 8 ? BinaryPrimitives.ReadUInt64LittleEndian(entry) : BinaryPrimitives.ReadUInt32LittleEndian(entry);
        }

        return entries;
    }
}
