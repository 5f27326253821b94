using PvGuest;
using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Samples.Tests;

/// <summary>What the sample guest says where something is missing or wrong, and that wrong guests are found out.</summary>
public sealed class GuestFailureTests
{
    [Fact]
    public void without_the_emulator_it_says_what_to_install()
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        Assert.Equal(1, Report.Run(output, error, hasEmulator: false));
        Assert.Equal("", output.ToString());
        Assert.Contains("libunicorn2", error.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void a_guest_patched_for_another_hypervisor_does_not_get_far(int bitness)
    {
        GuestRunTests.RequireEmulator();
        GuestImage image = GuestRunTests.Image(bitness);
        int pairs = 0;
        foreach (string machine in Hypervisor.All(bitness).Select(h => h.Name))
        {
            foreach (Hypervisor other in Hypervisor.All(bitness).Where(o => o.Name != machine && (machine, o.Name) != ("kvm", "native")))
            {
                Backend backend = other.CreateBackend(image);
                var error = Assert.Throws<GuestException>(
                    () => GuestRun.Of(image, Hypervisor.Create(machine, bitness), Patching.Batched, backend));
                Assert.StartsWith($"{machine}: ", error.Message, StringComparison.Ordinal);
                pairs++;
            }
        }

        Assert.Equal(bitness == 32 ? 19 : 5, pairs);
    }

    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void answers_that_cannot_be_stop_the_guest(int bitness)
    {
        GuestRunTests.RequireEmulator();
        foreach (ulong answer in (ulong[])[1, 0x7fffffff, 0xffffffff])
        {
            Check(new Xen { Rubbish = answer }, "xen");
        }

        foreach (ulong answer in (ulong[])[0, 1025, 0x7fffffff, 0xffffffff])
        {
            Check(new Kvm { Rubbish = answer }, "kvm");
        }

        void Check(Hypervisor hypervisor, string name)
        {
            var error = Assert.Throws<GuestException>(
                () => GuestRun.Of(GuestRunTests.Image(bitness), hypervisor, Patching.Batched));
            Assert.StartsWith($"the guest stopped itself: {name}'s answer", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void a_rom_that_answers_with_rubbish_is_refused_before_anything_is_patched()
    {
        GuestImage image = GuestRunTests.Image(32);
        var options = new StandardBackendOptions
        {
            Vmi = new VmiOptions { GetRelocation = static _ => new VmiRelocation((VmiRelocationKind)7, 0x1000) },
        };
        var error = Assert.Throws<ArgumentException>(() => GuestRun.Of(image, new Vmi(), Patching.Patched, options: options));
        Assert.Contains("kind 7", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(32, "kvm", "mmu.lazy_mode.leave")]
    [InlineData(64, "kvm", "mmu.lazy_mode.leave")]
    [InlineData(32, "xen", "cpu.end_context_switch")]
    [InlineData(64, "xen", "cpu.end_context_switch")]
    [InlineData(32, "lguest", "cpu.end_context_switch")]
    [InlineData(32, "vmi", "cpu.end_context_switch")]
    public void calls_that_are_made_too_late_are_found_out(int bitness, string name, string slot)
    {
        GuestRunTests.RequireEmulator();
        GuestImage image = GuestRunTests.Image(bitness);
        var hypervisor = Hypervisor.Create(name, bitness);
        Backend late = hypervisor.CreateBackend(image).Derive("late", b => b.Nop(slot)); // entered and never left
        Exception error = Assert.ThrowsAny<Exception>(() => GuestRun.Of(image, hypervisor, Patching.Batched, late, ticks: 0));
        Assert.True(error is GuestException or PatchException, error.ToString());
        TestContext.Current.TestOutputHelper!.WriteLine(error.Message);
    }

    [Theory]
    [InlineData(32, "native")]
    [InlineData(64, "native")]
    [InlineData(64, "xen")]
    public void a_translation_that_is_not_flushed_is_found_out(int bitness, string name)
    {
        GuestRunTests.RequireEmulator();
        GuestImage image = GuestRunTests.Image(bitness);
        var hypervisor = Hypervisor.Create(name, bitness);
        Backend backend = hypervisor.CreateBackend(image).Derive("stale", static b => b.Nop("mmu.flush_tlb_single"));
        var error = Assert.Throws<GuestException>(() => GuestRun.Of(image, hypervisor, Patching.Batched, backend));

        // It copied a page until memory was full.
        Assert.Contains("0x800000, where it has nothing", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void a_lock_held_with_interrupts_on_is_found_out()
    {
        GuestRunTests.RequireEmulator();
        GuestImage image = GuestRunTests.Image(64);
        Backend backend = new Native().CreateBackend(image).Derive("open", static b => b.Nop("irq.irq_disable"));
        int found = 0;
        for (int period = 50; period < 60; period++)
        {
            try
            {
                GuestRun.Of(image, new Native(), Patching.Batched, backend, ticks: 200, period: period);
            }
            catch (GuestException)
            {
                found++;
            }
        }

        Assert.True(found > 0);
    }
}
