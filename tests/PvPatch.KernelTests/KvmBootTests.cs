using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The harness as a KVM guest: CPUID leaves that QEMU's translator has not, given to an unchanged kernel.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class KvmBootTests(BootedKernelFixture fixture)
{
    /// <summary>
    /// Two possible processors, of which one runs; without MWAIT, which speaks against PV TLB flushes. The lock prefixes
    /// would be taken out for the one processor.
    /// </summary>
    private static readonly MachineOptions s_two = new()
    {
        Cpu = "max,-monitor",
        Processors = "1,maxcpus=2",
        Append = "noreplace-smp",
    };

    public static TheoryData<string> Others =>
    [
        Kernels.Bullseye.ToString(),
        Kernels.Trixie.ToString(),
        Kernels.Sid.ToString(),
    ];

    [Fact]
    public void The_6_1_kernel_takes_the_features_it_is_told_of()
    {
        CheckFeatures(Kernels.Bookworm);
    }

    [Theory]
    [MemberData(nameof(Others))]
    [Trait("Category", "Matrix")]
    public void Every_other_kernel_takes_the_features_it_is_told_of(string request)
    {
        CheckFeatures(PackageRequest.Parse(request));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void Without_features_the_table_is_that_of_a_native_boot()
    {
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm, new MachineOptions { KvmFeatures = 0 });
        BootedKernel native = fixture.Boot(Kernels.Bookworm);

        Assert.True(kernel.HypervisorAnswers > 0);
        Assert.Contains("Booting paravirtualized kernel on KVM", kernel.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Booting paravirtualized kernel on bare hardware", native.Report.Log, StringComparison.Ordinal);
        Assert.Equal(native.Words("pv_ops"), kernel.Words("pv_ops"));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void An_elf_boots_as_kvm_guest()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-elf-");
        try
        {
            string path = Path.Combine(directory.FullName, "vmlinux");
            BzImage.ExtractElf(fixture.Fetch(Kernels.Bookworm).ImagePath, path);
            MachineOptions options = s_two with { KvmFeatures = 0x22a2 };

            BootedKernel kernel = fixture.Boot(path, options, fixture.Boot(Kernels.Bookworm));

            Assert.Contains("Booting paravirtualized kernel on KVM", kernel.Report.Log, StringComparison.Ordinal);
            Assert.Equal(fixture.Boot(Kernels.Bookworm, options).Words("pv_ops"), kernel.Words("pv_ops"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    public void A_kvm_guest_without_symbols_is_refused()
    {
        Require.KernelBooting();
        Assert.Throws<ArgumentException>(() => QemuMachine.Start("/dev/null", new MachineOptions { KvmFeatures = 0 }));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void A_kvm_guest_that_panics_is_reported_with_the_end_of_its_console()
    {
        MachineOptions options = new() { KvmFeatures = 0, Append = "rdinit=/absent" };

        InvalidOperationException exception =
            Assert.Throws<InvalidOperationException>(() => fixture.Boot(Kernels.Bookworm, options));

        Assert.Contains("QEMU ended", exception.Message, StringComparison.Ordinal);
        Assert.Contains("Kernel panic", exception.Message, StringComparison.Ordinal);
    }

    private void CheckFeatures(PackageRequest request)
    {
        // NOP_IO_DELAY 0x2, STEAL_TIME 0x20, PV_UNHALT 0x80, PV_TLB_FLUSH 0x200, PV_SCHED_YIELD 0x2000
        BootedKernel kernel = fixture.Boot(request, s_two with { KvmFeatures = 0x22a2 });

        Assert.True(kernel.HypervisorAnswers > 0);
        Assert.Contains("Hypervisor detected: KVM", kernel.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Booting paravirtualized kernel on KVM", kernel.Report.Log, StringComparison.Ordinal);
        Assert.Contains("PV spinlocks enabled", kernel.Report.Log, StringComparison.Ordinal);

        // 7.x has the lock slots in a table of their own.
        string table = kernel.Report.Symbols.ContainsKey("pv_ops_lock") ? "pv_ops_lock" : "pv_ops";
        Assert.Contains(kernel.Report.Symbol("__raw_callee_save___pv_queued_spin_unlock"), kernel.Words(table));
        Assert.DoesNotContain(kernel.Report.Symbol("__raw_callee_save___pv_queued_spin_unlock"), fixture.Boot(request).Words(table));
    }
}
