using PvPatch.KernelTests.Harness;
using PvPatch.LazyModes;

namespace PvPatch.KernelTests.Multicalls;

/// <summary>
/// The policy for Xen against the real one: a kernel as dom0 of Xen traces its multicalls while a program forks, and our queue is given the
/// same calls. Every flush has the same place, reason, number of calls, bytes of arguments and functions.
/// </summary>
/// <remarks>
/// Kernels up to 6.12. Later ones (7.2 was looked at) enter and leave modes without a function that could be traced. The limit of 32
/// functions is not reached by the kernel's own work, as calls are 32 before functions are.
/// </remarks>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class XenMulticallTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private const string Script = """
        mount -t tracefs t /sys/kernel/tracing
        cd /sys/kernel/tracing
        echo 0 > tracing_on
        echo 8192 > buffer_size_kb
        for e in events/xen/xen_mc_*; do echo 1 > $e/enable; done
        for f in paravirt_enter_lazy_mmu xen_enter_lazy_mmu xen_leave_lazy_mmu \
            paravirt_start_context_switch xen_start_context_switch xen_end_context_switch; do
            grep -x $f available_filter_functions >> set_ftrace_filter
        done
        echo function > current_tracer
        echo 1 > tracing_on
        /forks
        true | true
        echo 0 > tracing_on
        cat trace

        """;

    // Linux counts nested modes since some release between 6.1 and 6.12.
    private static readonly LazyPolicy s_uncounted = LazyPolicy.Xen with { Name = "Xen multicall, uncounted", CountsNesting = false };

    [Fact]
    public void The_queue_does_what_a_kernel_under_xen_does() => Check("bookworm", 1, s_uncounted);

    [Theory]
    [Trait("Category", "Matrix")]
    [InlineData("bullseye", 1)]
    [InlineData("bookworm", 2)]
    [InlineData("trixie", 1)]
    [InlineData("trixie", 2)]
    public void The_queue_does_what_other_kernels_do(string kernel, int processors) =>
        Check(kernel, processors, kernel == "trixie" ? LazyPolicy.Xen : s_uncounted);

    private void Check(string kernel, int processors, LazyPolicy policy)
    {
        IReadOnlyList<MulticallEvent> events = MulticallEvent.ReadAll(Trace(kernel, processors));

        MulticallReplay replay = MulticallReplay.Run(policy, events);

        output.WriteLine(
            $"{kernel}, {processors} CPUs: {replay.Calls} calls, {replay.Grown} of them grew another one, {replay.Switches} switches; "
            + "flushes " + string.Join(", ", replay.Flushes.Select(static f => $"{f.Key} {f.Value}")));
        Assert.True(replay.Flushes[FlushReason.Immediate] > 50);
        Assert.True(replay.Flushes[FlushReason.Leave] > 10);
        Assert.True(replay.Flushes[FlushReason.Full] > 0);
        Assert.True(replay.Flushes[FlushReason.Arguments] > 5);
        Assert.True(replay.Switches > 3);

        // Nothing is flushed for a reason that we do not know.
        Assert.DoesNotContain(FlushReason.Requested, replay.Flushes.Keys);

        // A queue that is a little different does not.
        foreach (LazyPolicy other in (LazyPolicy[])
            [
                policy with { Capacity = 31 }, policy with { Capacity = 33 }, policy with { ArgumentBytes = 495 },
                policy with { ArgumentBytes = 512 }, policy with { ArgumentAlignment = 16 }, policy with { Extends = false },
                policy with { OverflowIsMade = true }, policy with { DefersIn = LazyMode.Mmu }, policy with { DefersIn = LazyMode.Cpu },
            ])
        {
            Assert.Throws<InvalidDataException>(() => MulticallReplay.Run(other, events));
        }
    }

    private string Trace(string kernel, int processors)
    {
        Require.KernelBooting();
        string path = fixture.Fetch(TestedKernels.Named(kernel)).ImagePath;
        string forks = Path.GetTempFileName();
        try
        {
            ForkingProgram.Write(forks);
            GuestProgram program = new GuestProgram { Script = Script }.Add("forks", forks);
            var options = new MachineOptions { Xen = new XenOptions { Dom0Processors = processors } };

            // Symbols are of no use here, and take half a minute under Xen.
            var symbols = new Dictionary<string, ulong>();
            return Require.Available(() =>
            {
                using QemuMachine machine = QemuMachine.Start(path, options, symbols, [], program);
                machine.RunTo(BootPoint.Ready);
                return machine.ReadReport().Output;
            });
        }
        finally
        {
            File.Delete(forks);
        }
    }
}
