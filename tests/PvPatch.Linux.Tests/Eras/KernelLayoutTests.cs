using PvPatch.Linux.Layouts;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>The layouts that come with the library, and the reader of a user's own, whatever the user writes.</summary>
public sealed class KernelLayoutTests
{
    // Numbers of the kernels' lists: how many words, how many callee-save ones, and a few places from start to end.
    [Theory]
    [InlineData("2.6.20-i386", 7, 0, "irq_disable 0 irq_enable 1 restore_fl 2 save_fl 3 save_fl_irq_disable 4 iret 5 irq_enable_sysexit 6")]
    [InlineData("2.6.22-i386-pae", 92, 0, "patch 4 save_fl 27 irq_enable 30 set_pte 72 make_pgd 88 iret 91")]
    [InlineData("2.6.24-i386-pae-highpte", 92, 0,
        "init.patch 0 time.sched_clock 8 cpu.iret 39 irq.irq_disable 45 apic.apic_write 49 mmu.set_pte 73 mmu.lazy_mode.leave 91")]
    [InlineData("2.6.25-x86-64", 94, 0, "cpu.swapgs 43 irq.save_fl 47 mmu.pte_val 82 mmu.lazy_mode.leave 93")]
    [InlineData("2.6.32-x86-64", 100, 12, "cpu.wbinvd 29 irq.save_fl 46 apic.startup_ipi_hook 53 mmu.pte_val 81 lock.spin_unlock 99")]
    [InlineData("3.6-x86-64", 101, 12, "time.steal_clock 2 irq.save_fl 45 mmu.set_pmd_at 75 lock.spin_unlock 100")]
    [InlineData("4.9-x86-64", 91, 13, "cpu.iret 36 irq.save_fl 40 mmu.set_pte 66 lock.queued_spin_unlock 88 lock.kick 90")]
    [InlineData("4.19-x86-64-5level", 92, 16, "cpu.iret 33 irq.save_fl 37 mmu.p4d_val 80 lock.vcpu_is_preempted 91")]
    [InlineData("4.19-x86-64-4level", 89, 14, "cpu.iret 33 irq.save_fl 37 mmu.set_p4d 79 mmu.lazy_mode.enter 80 lock.vcpu_is_preempted 88")]
    [InlineData("4.20-x86-64-5level", 92, 16, "cpu.io_delay 3 cpu.iret 33 mmu.flush_tlb_user 43 mmu.read_cr2 49 lock.vcpu_is_preempted 91")]
    [InlineData("5.10.89-x86-64-5level", 89, 17, "cpu.iret 32 irq.save_fl 35 mmu.read_cr2 47 lock.vcpu_is_preempted 88")]
    [InlineData("7.2-x86-64", 78, 16,
        "cpu.get_debugreg 0 irq.save_fl 28 mmu.lazy_mode_flush 71 lock.queued_spin_lock_slowpath 73 lock.vcpu_is_preempted 77")]
    public void The_layouts_known_have_the_numbers_of_their_kernels(string name, int count, int calleeSave, string places)
    {
        OpsLayout layout = EraLayouts.Known(name);
        Assert.Equal(count, layout.Count);
        Assert.Equal(calleeSave, layout.Slots.Count(s => s.Convention == CallConvention.CalleeSave));
        string[] words = places.Split(' ');
        for (int i = 0; i < words.Length; i += 2)
        {
            Assert.Equal(words[i + 1], layout[words[i]].Index.ToString(System.Globalization.CultureInfo.InvariantCulture));
        }

        Assert.All(layout.Slots, s => Assert.Equal(s.ShortName is "iret" or "irq_enable_sysexit" or "irq_enable_syscall_ret"
            or "usergs_sysret64" or "usergs_sysret32", s.Kind == SlotKind.Jump));
    }

    // The orders as the headers of each release and configuration have them, by a list of their digests.
    [Fact]
    public void Every_order_is_that_of_its_kernels_headers()
    {
        string list = Repository.Path("tests", "PvPatch.Linux.Tests", "Eras", "slot-orders.txt");
        string[] expected = [.. File.ReadLines(list).Where(static l => l[0] != '#')];
        string[] found = [.. KernelLayouts.All.Where(static l => l.Name is not ("2.6.20-i386" or "2.6.22-i386-pae")).Select(Digest)];

        Assert.Equal(252, expected.Length);
        Assert.Equal(expected.Order(StringComparer.Ordinal), found.Order(StringComparer.Ordinal));
    }

    private static string Digest(OpsLayout layout)
    {
        string slots = string.Join(
            '\n', layout.Slots.Select(static s => s.Convention == CallConvention.CalleeSave ? s.Name + "*" : s.Name));
        string hash = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(System.Text.Encoding.ASCII.GetBytes(slots)));
        return string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{layout.Name} {layout.Count} {hash[..16]}");
    }

    [Theory]
    [InlineData("5.1-x86-64-4level", "4.20-5.2-x86-64-4level")]
    [InlineData("4.20-5.2-X86-64-4level", "4.20-5.2-x86-64-4level")]
    [InlineData("2.6.35-i386-pae", "2.6.32-2.6.36-i386-pae")]
    [InlineData("5.10.300-x86-64-4level", "5.10.262-x86-64-4level")]
    [InlineData("7.2.13-x86-64-nospinlocks", "7.2-x86-64-nospinlocks")]
    [InlineData("3.10-x86-64-el7", "3.10-x86-64-el7")]
    [InlineData("5.10.100-x86-64-4level", null)] // between two orders of the stable series
    [InlineData("5.5-x86-64-4level", null)]
    [InlineData("7.3-x86-64", null)]
    [InlineData("5.4-x86-64", null)]
    [InlineData("5.4", null)]
    [InlineData("99999999999.1-x86-64", null)]
    public void A_layout_is_found_by_a_release_among_its_own(string name, string? expected)
    {
        Assert.Equal(expected is not null, KernelLayouts.TryGet(name, out OpsLayout? layout));
        Assert.Equal(expected, layout?.Name);
    }

    [Fact]
    public void Numbers_kinds_stars_and_comments_may_be_written()
    {
        OpsLayout layout = EraLayouts.Read(
            "# mine\r\n\r\nbits 64 # wide\r\n0 init.patch\r\nirq.save_fl*\r\n\t2 irq.leave jump\r\nirq.word data\r\n");
        Assert.Equal([SlotKind.Data, SlotKind.Call, SlotKind.Jump, SlotKind.Data], layout.Slots.Select(s => s.Kind));
        Assert.Equal(CallConvention.CalleeSave, layout[1].Convention);
        Assert.Equal(CallConvention.KernelSysV, layout[2].Convention);
        Assert.Equal("irq.word", layout[3].Name);
    }

    public static TheoryData<string, string> BadTexts => new()
    {
        { "", KernelDiagnosticCodes.LayoutIncomplete },
        { "bits 64", KernelDiagnosticCodes.LayoutIncomplete },
        { "irq.save_fl", KernelDiagnosticCodes.LayoutIncomplete },
        { "bits 48\nirq.save_fl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nbits 64\nirq.save_fl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n1 irq.save_fl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n0", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n99999999999999999999 irq.save_fl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.save_fl call", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.save_fl jump data", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n*", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n.save_fl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.sävefl", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.a\nmmu.b\nirq.c", KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\nirq.a\nirq.a", DiagnosticCodes.DuplicateName },
        { "bits 64\nirq." + new string('a', 64), KernelDiagnosticCodes.LayoutBadLine },
        { "bits 64\n" + string.Concat(Enumerable.Range(0, 257).Select(i => $"irq.s{i}\n")), KernelDiagnosticCodes.LayoutTooLarge },
        { new string('#', 70000), KernelDiagnosticCodes.LayoutTooLarge },
    };

    [Theory]
    [MemberData(nameof(BadTexts))]
    public void What_is_no_layout_is_refused_with_the_line(string text, string code)
    {
        Assert.False(
            KernelLayouts.TryRead(System.Text.Encoding.UTF8.GetBytes(text), "bad", out OpsLayout? layout, out PatchDiagnostic? error));
        Assert.Null(layout);
        Assert.True(error.Code == code, error.ToString());
        Assert.True(
            code != KernelDiagnosticCodes.LayoutBadLine || error.Source!.StartsWith("line ", StringComparison.Ordinal), error.ToString());
    }

    [Fact]
    public void Damaged_texts_give_a_layout_or_a_finding_and_nothing_else()
    {
        byte[] good = System.Text.Encoding.UTF8.GetBytes("bits 64\n0 init.patch\ncpu.iret\nirq.save_fl*\nmmu.set_pte\n");
        var random = TestSeed.NewRandom();
        for (int i = 0; i < 20000; i++)
        {
            byte[] text = [.. good];
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                text[random.Next(text.Length)] = (byte)random.Next(256);
            }

            bool read = KernelLayouts.TryRead(
                text.AsSpan(0, random.Next(text.Length + 1)), "damaged", out OpsLayout? layout, out PatchDiagnostic? error);
            Assert.True(read ? layout is { Count: > 0 } && error is null : layout is null && error is not null);
        }
    }

    [Fact]
    public void A_layout_is_found_by_name_or_file_and_a_file_says_where_it_is_wrong()
    {
        using var folder = new TestFolder();
        Assert.True(KernelLayouts.TryLoad("3.6-X86-64", out OpsLayout? layout, out _));
        Assert.Equal("3.6-3.7-x86-64", layout.Name);
        Assert.True(KernelLayouts.TryLoad(folder.File("mine.txt", "bits 32\nirq_disable\n"u8.ToArray()), out layout, out _));
        Assert.Equal("mine", layout.Name);
        Assert.False(KernelLayouts.TryLoad(folder.File("bad.txt", "bits 32\n!\n"u8.ToArray()), out _, out PatchDiagnostic? error));
        Assert.EndsWith("bad.txt, line 2", error.Source, StringComparison.Ordinal);
        Assert.False(KernelLayouts.TryLoad(folder.File("none"), out _, out error));
        Assert.Equal(KernelDiagnosticCodes.LayoutUnreadable, error.Code);
        Assert.Contains("2.6.24-i386-pae", error.Expected, StringComparison.Ordinal);
        Assert.False(KernelLayouts.TryLoad(folder.Path, out _, out error));
        Assert.Equal(KernelDiagnosticCodes.LayoutUnreadable, error.Code);
    }
}
