using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>A machine used directly, and what it does when the guest fails.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class QemuMachineTests(BootedKernelFixture fixture)
{
    [Fact]
    public void A_stopped_machine_gives_memory_by_physical_and_by_link_address()
    {
        Require.KernelBooting();
        using QemuMachine machine = QemuMachine.Start(fixture.Fetch(Kernels.Bookworm).ImagePath);
        machine.RunTo(BootPoint.AfterPatching);

        byte[] physical = machine.ReadPhysical(0x100_0000, 4096);

        Assert.Contains(physical, static value => value != 0);
        Assert.Equal(physical, machine.ReadKernel(0xffff_ffff_8100_0000, 4096));
        Assert.DoesNotContain(GuestInitramfs.ReadyMark, machine.ConsoleText, StringComparison.Ordinal);
    }

    [Fact]
    public void Memory_the_guest_has_not_is_refused()
    {
        Require.KernelBooting();
        using QemuMachine machine = QemuMachine.Start(fixture.Fetch(Kernels.Bookworm).ImagePath);

        // The last page is there, the one behind it is not; below the image's offset the address wraps around.
        Assert.Equal(4096, machine.ReadPhysical(0x3000_0000 - 4096, 4096).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => machine.ReadPhysical(0x3000_0000 - 4096, 4097));
        Assert.Throws<ArgumentOutOfRangeException>(() => machine.ReadKernel(0x1000, 4096));
    }

    [Fact]
    public void A_guest_that_panics_is_reported_with_the_end_of_its_console()
    {
        Require.KernelBooting();
        MachineOptions options = new() { Append = "rdinit=/absent" };
        using QemuMachine machine = QemuMachine.Start(fixture.Fetch(Kernels.Bookworm).ImagePath, options);

        InvalidOperationException exception =
            Assert.Throws<InvalidOperationException>(() => machine.RunTo(BootPoint.Ready));

        Assert.Contains("QEMU ended", exception.Message, StringComparison.Ordinal);
        Assert.Contains("Kernel panic", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_machine_qemu_refuses_is_reported_with_the_reason()
    {
        Require.KernelBooting();
        MachineOptions options = new() { Cpu = "no-such-processor" };

        InvalidOperationException exception =
            Assert.Throws<InvalidOperationException>(() => QemuMachine.Start("/dev/null", options));

        Assert.Contains("no-such-processor", exception.Message, StringComparison.Ordinal);
    }
}
