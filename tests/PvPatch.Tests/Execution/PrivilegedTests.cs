using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Execution;

/// <summary>
/// The bodies only a kernel may run, at whole patched sites in ring 0 of an emulator: they do what their slot is for, and nothing else
/// changes, whatever nops stand behind them.
/// </summary>
public sealed class PrivilegedTests
{
    private const ulong If = UnicornCpu.InterruptFlag;

    private static readonly (int Bitness, NopStyle Style)[] s_styles =
    [
        (64, NopStyle.P6), (64, NopStyle.K8), (64, NopStyle.Linux61X64), (64, NopStyle.Linux612X64),
        (32, NopStyle.Intel), (32, NopStyle.K8), (32, NopStyle.K7), (32, NopStyle.P6), (32, NopStyle.Linux61X86),
        (32, NopStyle.Linux612X86),
    ];

    [Fact]
    public void Cli_clears_the_interrupt_flag_and_nothing_else() => ForAll([0xfa], [0xfa], site =>
    {
        site.Run();
        Assert.Equal([CpuRegister.Flags], site.Changed());
        Assert.Equal(site.Before(CpuRegister.Flags) & ~If, site.Cpu[CpuRegister.Flags]);
    });

    [Fact]
    public void Sti_sets_the_interrupt_flag() => ForAll([0xfb], [0xfb], site =>
    {
        site.Cpu[CpuRegister.Flags] = 2;
        site.Run();
        Assert.Equal([CpuRegister.Flags], site.Changed());
        Assert.Equal(2 | If, site.Cpu[CpuRegister.Flags]);
    });

    [Fact]
    public void Pushf_and_pop_give_the_flags() => ForAll([0x9c, 0x58], [0x9c, 0x58], site =>
    {
        foreach (ulong flags in (ulong[])[0x2, 0x202, 0x8d7])
        {
            site.Cpu[CpuRegister.Flags] = flags;
            site.Cpu[CpuRegister.Rax] = 0xaaaa;
            site.Run();
            Assert.Equal([CpuRegister.Rax], site.Changed());
            Assert.Equal(flags, site.Cpu[CpuRegister.Rax]);
        }
    });

    [Fact]
    public void Push_and_popf_restore_the_flags_of_the_first_argument() => ForAll([0x57, 0x9d], [0x50, 0x9d], site =>
    {
        foreach (ulong flags in (ulong[])[0x2, 0x202, 0x8d7])
        {
            site.Cpu[CpuRegister.Flags] = 0x46;
            site.Cpu[CpuRegister.Rdi] = flags;
            site.Cpu[CpuRegister.Rax] = flags;
            site.Run();
            Assert.Equal([CpuRegister.Flags], site.Changed());
            Assert.Equal(flags, site.Cpu[CpuRegister.Flags]);
        }
    });

    [Fact]
    public void Mov_from_cr2_and_cr3_gives_them()
    {
        ForAll([0x0f, 0x20, 0xd0], [0x0f, 0x20, 0xd0], site => // mov rax,cr2
        {
            site.Cpu[CpuRegister.Cr2] = 0x12345000;
            site.Run();
            Assert.Equal(0x12345000UL, site.Cpu[CpuRegister.Rax]);
            Assert.DoesNotContain(site.Changed(), r => r is not (CpuRegister.Rax or CpuRegister.Flags));
        });
        ForAll([0x0f, 0x20, 0xd8], [0x0f, 0x20, 0xd8], site => // mov rax,cr3
        {
            site.Cpu[CpuRegister.Cr3] = 0x7000;
            site.Run();
            Assert.Equal(0x7000UL, site.Cpu[CpuRegister.Rax]);
            Assert.DoesNotContain(site.Changed(), r => r is not (CpuRegister.Rax or CpuRegister.Flags));
        });
    }

    [Fact]
    public void Mov_to_cr3_sets_it() => ForAll([0x0f, 0x22, 0xdf], [0x0f, 0x22, 0xd8], site => // mov cr3,rdi; mov cr3,eax
    {
        site.Cpu[CpuRegister.Rdi] = 0x5000;
        site.Cpu[CpuRegister.Rax] = 0x5000;
        site.Run();
        Assert.Equal(0x5000UL, site.Cpu[CpuRegister.Cr3]);
        Assert.DoesNotContain(site.Changed(), r => r != CpuRegister.Flags);
    });

    [Fact]
    public void Clts_clears_the_task_switched_flag() => ForAll([0x0f, 0x06], [0x0f, 0x06], site =>
    {
        const ulong TaskSwitched = 8;
        site.Cpu[CpuRegister.Cr0] |= TaskSwitched;
        ulong before = site.Cpu[CpuRegister.Cr0];
        site.Run();
        Assert.Equal(before & ~TaskSwitched, site.Cpu[CpuRegister.Cr0]);
        Assert.Empty(site.Changed());
    });

    [Fact]
    public void Wbinvd_and_invlpg_change_no_register()
    {
        ForAll([0x0f, 0x09], [0x0f, 0x09], static site => // wbinvd
        {
            site.Run();
            Assert.Empty(site.Changed());
        });
        ForAll([0x0f, 0x01, 0x3f], [0x0f, 0x01, 0x38], static site => // invlpg [rdi]; invlpg [eax]
        {
            site.Run();
            Assert.Empty(site.Changed());
        });
    }

    [Fact]
    public void Nops_of_every_style_and_length_change_nothing()
    {
        foreach ((int bitness, NopStyle style) in s_styles)
        {
            for (int budget = 6; budget <= 40; budget++)
            {
                using var site = new EmulatedSite(bitness, Operation.Nop, budget, style);
                site.Cpu[CpuRegister.Flags] = 0xcd7;
                site.Run();
                Assert.True(site.Changed().Length == 0, $"{site.Decision} changes {string.Join(",", site.Changed())}");
            }
        }
    }

    [Fact]
    public void Swapgs_swaps_the_base_of_gs_with_the_kernels()
    {
        using var site = new EmulatedSite(64, Operation.Inline(InlineBody.FromBytes([0x0f, 0x01, 0xf8])), 7);
        WriteMsr(site, 0xc0000101, 0x1111000); // GS base
        WriteMsr(site, 0xc0000102, 0x2222000); // kernel GS base
        site.Run();
        Assert.Empty(site.Changed());
        Assert.Equal(0x2222000UL, ReadMsr(site, 0xc0000101));
        Assert.Equal(0x1111000UL, ReadMsr(site, 0xc0000102));
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Iret_goes_where_the_frame_says_with_its_flags(int bitness)
    {
        byte[] iret = bitness == 64 ? [0x48, 0xcf] : [0xcf];
        using var site = new EmulatedSite(bitness, Operation.Inline(InlineBody.FromBytes(iret)), 7, kind: SlotKind.Jump);
        Assert.Equal(PatchAction.Inline, site.Decision.Action);
        LoadSegments(site, bitness);
        ulong resumed = EmulatedSite.Code + 0x200;
        ulong stack = EmulatedSite.Stack + 0x400;
        ulong[] frame = [resumed, 0x08, 0x203, stack, 0x10]; // rip, cs, flags, rsp, ss
        site.Cpu[CpuRegister.Rsp] = EmulatedSite.StackTop;
        for (int i = 0; i < (bitness == 64 ? 5 : 3); i++)
        {
            site.Cpu.Write(EmulatedSite.StackTop + (ulong)(i * bitness / 8), BitConverter.GetBytes(frame[i]).AsSpan(0, bitness / 8));
        }

        site.Run(until: resumed);
        Assert.Equal(0x203UL, site.Cpu[CpuRegister.Flags]);
        Assert.Equal(bitness == 64 ? stack : EmulatedSite.StackTop + 12, site.Cpu[CpuRegister.Rsp]);
        Assert.DoesNotContain(site.Changed(), r => r is not (CpuRegister.Rsp or CpuRegister.Flags));
    }

    [Fact]
    public void A_missing_operation_traps()
    {
        using var site = new EmulatedSite(64, Operation.Missing, 7);
        Assert.Equal(PatchAction.Trap, site.Decision.Action);
        Assert.Throws<InvalidOperationException>(() => site.Run());
        Assert.Equal(EmulatedSite.Code, site.Cpu[CpuRegister.Rip]); // at the ud2, not behind it
    }

    /// <summary>Runs a body with every style of nops behind it, at sites of several lengths.</summary>
    private static void ForAll(byte[] body64, byte[] body32, Action<EmulatedSite> check)
    {
        foreach ((int bitness, NopStyle style) in s_styles)
        {
            Operation operation = Operation.Inline(InlineBody.FromBytes(bitness == 64 ? body64 : body32));
            foreach (int budget in (int[])[6, 7, 8, 11, 16, 21])
            {
                using var site = new EmulatedSite(bitness, operation, budget, style);
                Assert.Equal(PatchAction.Inline, site.Decision.Action);
                check(site);
            }
        }
    }

    private static void WriteMsr(EmulatedSite site, uint msr, uint value)
    {
        (ulong rax, ulong rcx, ulong rdx) = (site.Cpu[CpuRegister.Rax], site.Cpu[CpuRegister.Rcx], site.Cpu[CpuRegister.Rdx]);
        (site.Cpu[CpuRegister.Rax], site.Cpu[CpuRegister.Rcx], site.Cpu[CpuRegister.Rdx]) = (value, msr, 0);
        site.Prepare([0x0f, 0x30]); // wrmsr
        (site.Cpu[CpuRegister.Rax], site.Cpu[CpuRegister.Rcx], site.Cpu[CpuRegister.Rdx]) = (rax, rcx, rdx);
    }

    private static ulong ReadMsr(EmulatedSite site, uint msr)
    {
        site.Cpu[CpuRegister.Rcx] = msr;
        site.Prepare([0x0f, 0x32]); // rdmsr
        return site.Cpu[CpuRegister.Rdx] << 32 | (uint)site.Cpu[CpuRegister.Rax];
    }

    /// <summary>A descriptor table with flat code at 0x08 and flat data at 0x10, and ss loaded from it.</summary>
    private static void LoadSegments(EmulatedSite site, int bitness)
    {
        const ulong Descriptors = EmulatedSite.Table + 0x100;
        ulong code = bitness == 64 ? 0x00af9b000000ffff : 0x00cf9b000000ffffUL;
        byte[] table = [.. BitConverter.GetBytes(0UL), .. BitConverter.GetBytes(code), .. BitConverter.GetBytes(0x00cf93000000ffffUL)];
        site.Cpu.Write(Descriptors, table);
        byte[] pointer = [0x17, 0x00, .. BitConverter.GetBytes(Descriptors)];
        site.Cpu.Write(Descriptors + 0x40, pointer);
        site.Cpu[CpuRegister.Rax] = Descriptors + 0x40;
        site.Prepare([0x0f, 0x01, 0x10, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd0]); // lgdt [rax]; mov ax,0x10; mov ss,eax
    }
}
