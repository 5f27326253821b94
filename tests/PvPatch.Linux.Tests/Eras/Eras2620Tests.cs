using PvPatch.Linux.Eras;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// 2.6.20 and 2.6.21: seven types of site, each with its word somewhere in struct paravirt_ops; a body by type or nothing.
/// </summary>
public sealed class Eras2620Tests
{
    private const string Sites = """
        type | clobbers | original | intel | k8 | k7 | vmi
        0 | 1 | push %ecx; push %edx; call *paravirt_ops+0x48; pop %edx; pop %ecx | cli; i8; i1 | cli; k8; k1 | cli; a8; a1 | call rom_disable; i5
        0 | 0 | push %ecx; push %edx; call *paravirt_ops+0x48; pop %edx; pop %ecx | cli; i8; i1 | cli; k8; k1 | cli; a8; a1 | call rom_disable; i5
        1 | 0 | push %ecx; push %edx; call *%cs:paravirt_ops+0x4c; pop %edx; pop %ecx | sti; i8; i2 | sti; k8; k2 | sti; a8; a2 | i8; i3
        1 | 1 | push %ecx; push %edx; call *paravirt_ops+0x4c; pop %edx; pop %ecx | sti; i8; i1 | sti; k8; k1 | sti; a8; a1 | i8; i2
        2 | 1 | push %ecx; push %edx; call *paravirt_ops+0x44; pop %edx; pop %ecx | push %eax; popf; i8 | push %eax; popf; k8 | push %eax; popf; a8 | =
        3 | 0 | push %ecx; push %edx; call *paravirt_ops+0x40; pop %edx; pop %ecx | pushf; pop %eax; i8 | pushf; pop %eax; k8 | pushf; pop %eax; a8 | call rom_save; i5
        4 | 0 | push %ecx; push %edx; call *paravirt_ops+0x40; push %eax; call *paravirt_ops+0x48; pop %eax; pop %edx; pop %ecx | pushf; pop %eax; cli; i8; i7 | pushf; pop %eax; cli; k8; k7 | pushf; pop %eax; cli; a8; a7 | call rom_save; call rom_disable; i8
        5 | 0 | jmp *%cs:paravirt_ops+0x74 | iret; i6 | iret; k6 | iret; a6 | jmp rom_iret; i2
        6 | 0 | jmp *%cs:paravirt_ops+0x70 | sti; sysexit; i4 | sti; sysexit; k4 | sti; sysexit; a4 | jmp rom_sysexit; i2
        """;

    /// <summary>The kernel, for tests of what is not done for one of 32 bits.</summary>
    internal static EraKernel Kernel => s_kernel;

    private static readonly EraKernel s_kernel = new()
    {
        Bits = 32,
        Sites = Sites,
        Layout = EraLayouts.Known("2.6.20-i386"),
        Data = """
            .globl paravirt_ops
            paravirt_ops: .zero 0x40
            .long native_save_fl, native_restore_fl, native_irq_disable, native_irq_enable
            .zero 0x20
            .long native_irq_enable_sysexit, native_iret
            """,
        Defines = """
            .set rom_disable, 0xfc001a20
            .set rom_save, 0xfc001a60
            .set rom_iret, 0xfc001aa0
            .set rom_sysexit, 0xfc001ae0
            """,
        More = "vmi_init: ret",
    };

    [Fact]
    public void The_era_and_its_types_are_told_by_the_sites()
    {
        KernelImage image = s_kernel.Open();
        Assert.Equal("linux-2.6.21", image.Era.Name);
        Assert.Equal("2.6.20-i386", image.Layout.Name);
        Assert.Equal(["native", "vmi"], image.BackendNames);
        Assert.Equal("linux-2.6.21", s_kernel.Open(symbols: false).Era.Name);
    }

    [Fact]
    public void A_native_boot_puts_bodies_in_by_type_with_the_nops_of_the_processor()
    {
        s_kernel.MustBecome("intel", new BootMachine { Nops = NopStyle.Intel });
        s_kernel.MustBecome("k8", new BootMachine { Nops = NopStyle.K8 });
        s_kernel.MustBecome("k7", new BootMachine { Nops = NopStyle.K7 }, symbols: false);
        s_kernel.MustBecome("intel", new BootMachine { Nops = NopStyle.Intel }, new KernelOptions { Era = KernelEra.Linux2620 });
    }

    [Fact]
    public void A_VMI_guest_asks_its_ROM() => s_kernel.MustBecome("vmi", new BootMachine
    {
        Backend = VmiBackend.Name,
        Nops = NopStyle.Intel,
        Vmi = EraRom.Answering(
            (VmiCall.DisableInterrupts, VmiRelocationKind.CallRel, 0xfc001a20),
            (VmiCall.EnableInterrupts, VmiRelocationKind.Nop, 0),
            (VmiCall.GetInterruptMask, VmiRelocationKind.CallRel, 0xfc001a60),
            (VmiCall.InterruptReturn, VmiRelocationKind.JumpRel, 0xfc001aa0),
            (VmiCall.SysExit, VmiRelocationKind.JumpRel, 0xfc001ae0)),
    });
}
