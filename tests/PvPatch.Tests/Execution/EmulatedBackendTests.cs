using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Golden;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Execution;

/// <summary>Bodies of Xen and lguest run against their shared memory, and 32-bit code with and without thunks.</summary>
public sealed class EmulatedBackendTests
{
    private const ulong LguestData = 0xc0751000;

    [Fact]
    public void Lguest_keeps_the_interrupt_flag_in_memory()
    {
        (string Slot, ulong Before, ulong After, ulong? Result)[] bodies =
        [
            ("irq.irq_disable", 0x200, 0, null), ("irq.irq_enable", 0, 0x200, null), ("irq.restore_fl", 0, 0x246, null),
            ("irq.save_fl", 0x200, 0x200, 0x200),
        ];
        foreach ((string slot, ulong before, ulong after, ulong? result) in bodies)
        {
            using EmulatedSite site = Site("lguest", 32, slot, "linux-2.6.30");
            site.Cpu.Map(LguestData, 0x1000);
            site.Cpu.Write(LguestData, BitConverter.GetBytes(before));
            site.Cpu[CpuRegister.Rax] = 0x246;
            site.Run();
            Assert.Equal(after, BitConverter.ToUInt64(site.Cpu.Read(LguestData, 8)));
            Assert.Equal(result ?? 0x246, site.Cpu[CpuRegister.Rax]);
            Assert.DoesNotContain(site.Changed(), r => r != CpuRegister.Rax);
        }
    }

    [Theory]
    [InlineData(0, 0x200)]
    [InlineData(1, 0)]
    public void Xen_reads_the_interrupt_flag_from_the_event_mask(byte mask, int flag)
    {
        using EmulatedSite site = Site("xen", 32, "irq.save_fl", "linux-2.6.30");
        site.Cpu.Map(0xc04f6000, 0x1000);
        site.Cpu.Write(0xc04f6001, [mask]);
        site.Run();
        Assert.Equal((ulong)flag, site.Cpu[CpuRegister.Rax] & 0x200);
        Assert.DoesNotContain(site.Changed(), r => r is not (CpuRegister.Rax or CpuRegister.Flags));
    }

    [Fact]
    public void Xen_disables_interrupts_by_masking_events()
    {
        foreach ((int bitness, ulong mask) in ((int, ulong)[])[(32, 0xc04f6001), (64, 0xb801)])
        {
            using EmulatedSite site = Site("xen", bitness, "irq.irq_disable", "linux-2.6.30");
            site.Cpu.Map(mask, 1);
            site.Run();
            Assert.Equal([1], site.Cpu.Read(mask, 1));
            Assert.Empty(site.Changed());
        }
    }

    [Theory]
    [InlineData("rax,rcx,rdx,flags")]
    [InlineData("rax,flags")]
    [InlineData("rax")]
    [InlineData("-")]
    [InlineData("rcx")]
    [InlineData("flags")]
    public void In_32_bit_code_thunks_keep_what_the_site_keeps(string registers)
    {
        Assert.True(RegisterSet.TryParse(registers, out RegisterSet allowed));
        using var site = new EmulatedSite(32, Operation.Call(EmulatedSite.Target), 8, allowed: allowed);
        bool all = registers.Length > 15;
        Assert.Equal(all ? PatchAction.Call : PatchAction.ThunkCall, site.Decision.Action);
        WriteTarget(site);
        site.Cpu[CpuRegister.Flags] = 0xcd7;
        site.Run();
        (RegisterSet Set, CpuRegister Register)[] names =
            [(RegisterSet.Rax, CpuRegister.Rax), (RegisterSet.Rcx, CpuRegister.Rcx), (RegisterSet.Rdx, CpuRegister.Rdx),
                (RegisterSet.Flags, CpuRegister.Flags)];
        Assert.Equal(names.Where(n => allowed.Contains(n.Set)).Select(n => n.Register).Order(), site.Changed().Order());
        Assert.Equal([1], site.Cpu.Read(EmulatedSite.Table + 0x80, 1)); // the target was there
    }

    [Theory]
    [InlineData(32, 0xfa, 0x202ul, false)] // cli
    [InlineData(32, 0xfb, 0x2ul, true)] // sti
    [InlineData(64, 0xfa, 0x202ul, false)]
    [InlineData(64, 0xfb, 0x2ul, true)]
    public void A_thunk_that_gives_flags_back_does_not_undo_what_its_target_did_to_interrupts(
        int bitness, byte opcode, ulong before, bool enabled)
    {
        RegisterSet allowed = RegisterSet.Rax;
        using var site = new EmulatedSite(bitness, Operation.Call(EmulatedSite.Target), 8, allowed: allowed);
        Assert.Equal(PatchAction.ThunkCall, site.Decision.Action);
        site.Cpu.Write(EmulatedSite.Target, [opcode, 0x85, 0xe4, 0xc3]); // cli or sti; test esp,esp; ret
        site.Cpu[CpuRegister.Flags] = before | 0x8d5; // OF SF ZF AF PF CF
        site.Run();
        Assert.Equal(enabled, (site.Cpu[CpuRegister.Flags] & 0x200) != 0);
        Assert.Equal(0x8d5ul, site.Cpu[CpuRegister.Flags] & 0x8d5);
        Assert.DoesNotContain(CpuRegister.Rcx, site.Changed());
    }

    [Fact]
    public void In_32_bit_code_the_patched_site_does_what_the_indirect_call_did()
    {
        using var patched = new EmulatedSite(32, Operation.Call(EmulatedSite.Target), 8);
        using var left = new EmulatedSite(32, Operation.Call(EmulatedSite.Target, destroys: RegisterSet.All), 8, allowed: RegisterSet.None);
        Assert.Equal(PatchAction.LeaveAlone, left.Decision.Action); // vector state cannot be saved
        foreach (EmulatedSite site in (EmulatedSite[])[patched, left])
        {
            WriteTarget(site);
            site.Run();
        }

        Assert.Equal(left.Changed(), patched.Changed());
        Assert.All(left.Changed(), r => Assert.Equal(left.Cpu[r], patched.Cpu[r]));
    }

    /// <summary>mov byte [0x300080],1; mov eax,1; mov ecx,2; mov edx,3; cld; test esp,esp; ret</summary>
    private static void WriteTarget(EmulatedSite site) =>
        site.Cpu.Write(EmulatedSite.Target,
            [0xc6, 0x05, 0x80, 0x00, 0x30, 0x00, 1, 0xb8, 1, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0xba, 3, 0, 0, 0, 0xfc, 0x85, 0xe4, 0xc3]);

    private static EmulatedSite Site(string backend, int bitness, string slot, string rules)
    {
        GoldenRow body = KernelEras.FindBody(GoldenTable.Load("bodies.txt"), backend, bitness, slot, rules)!;
        return new EmulatedSite(bitness, Operation.Inline(InlineBody.FromBytes(body.Bytes("bytes"))), 16);
    }
}
