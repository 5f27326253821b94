using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Support;

/// <summary>Code really runs: in this process, and in ring 0 of the emulator.</summary>
public sealed class ExecutionTests
{
    private const ulong Code = 0x100000;
    private const ulong Stack = 0x200000;

    [Fact]
    public void Code_in_executable_memory_gets_its_arguments_and_returns_a_result()
    {
        Requirement.That(ExecutableMemory.IsSupported, "Linux on x86-64 only");

        // mov rax,rdi; sub rax,rsi; ret
        using ExecutableMemory memory = ExecutableMemory.Create([0x48, 0x89, 0xf8, 0x48, 0x29, 0xf0, 0xc3]);
        Assert.Equal(0xffffffff_00000000UL, memory.Invoke(0xffffffff_00000005, 5));
    }

    [Fact]
    public void Executable_memory_is_not_writable()
    {
        Requirement.That(ExecutableMemory.IsSupported, "Linux on x86-64 only");
        using ExecutableMemory memory = ExecutableMemory.Create([0xc3]);
        string start = $"{memory.Address:x}-";
        string line = Assert.Single(File.ReadLines("/proc/self/maps"), line => line.StartsWith(start, StringComparison.Ordinal));
        Assert.Contains(" r-xp ", line, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Ring_0_switches_interrupts_off_and_on(int bitness)
    {
        using UnicornCpu cpu = Machine(bitness, [0xfa, 0xfb]);
        cpu[CpuRegister.Flags] = 0x202;
        cpu.Run(Code, Code + 1);
        Assert.Equal(0UL, cpu[CpuRegister.Flags] & UnicornCpu.InterruptFlag);
        cpu.Run(Code + 1, Code + 2);
        Assert.Equal(UnicornCpu.InterruptFlag, cpu[CpuRegister.Flags] & UnicornCpu.InterruptFlag);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Ring_0_saves_and_restores_flags(int bitness)
    {
        // pushf; pop rax; cli; push rax; popf
        using UnicornCpu cpu = Machine(bitness, [0x9c, 0x58, 0xfa, 0x50, 0x9d]);
        cpu[CpuRegister.Flags] = 0x202;
        cpu.Run(Code, Code + 3);
        Assert.Equal(UnicornCpu.InterruptFlag, cpu[CpuRegister.Rax] & UnicornCpu.InterruptFlag);
        Assert.Equal(0UL, cpu[CpuRegister.Flags] & UnicornCpu.InterruptFlag);
        cpu.Run(Code + 3, Code + 5);
        Assert.Equal(UnicornCpu.InterruptFlag, cpu[CpuRegister.Flags] & UnicornCpu.InterruptFlag);
        Assert.Equal(Stack + 0x800, cpu[CpuRegister.Rsp]);
    }

    [Fact]
    public void Ring_0_moves_to_and_from_control_registers()
    {
        // mov cr3,rdi; mov rax,cr3; mov rcx,cr2
        using UnicornCpu cpu = Machine(64, [0x0f, 0x22, 0xdf, 0x0f, 0x20, 0xd8, 0x0f, 0x20, 0xd1]);
        cpu[CpuRegister.Cr2] = 0x7f0012345678;
        cpu[CpuRegister.Rdi] = 0x5000;
        cpu.Run(Code, Code + 9);
        Assert.Equal(0x5000UL, cpu[CpuRegister.Cr3]);
        Assert.Equal(0x5000UL, cpu[CpuRegister.Rax]);
        Assert.Equal(0x7f0012345678UL, cpu[CpuRegister.Rcx]);
    }

    [Fact]
    public void Ring_0_moves_to_control_registers_in_32_bit_code()
    {
        // mov cr3,eax; mov ecx,cr3
        using UnicornCpu cpu = Machine(32, [0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xd9]);
        cpu[CpuRegister.Rax] = 0x5000;
        cpu.Run(Code, Code + 6);
        Assert.Equal(0x5000UL, cpu[CpuRegister.Cr3]);
        Assert.Equal(0x5000UL, cpu[CpuRegister.Rcx]);
    }

    [Fact]
    public void A_fault_is_told_in_words()
    {
        // mov rax,[0x900000]
        using UnicornCpu cpu = Machine(64, [0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x90, 0x00]);
        var error = Assert.Throws<InvalidOperationException>(() => cpu.Run(Code, Code + 8));
        Assert.Contains("UC_ERR_READ_UNMAPPED", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_run_that_does_not_arrive_is_an_error()
    {
        // jmp to itself
        using UnicornCpu cpu = Machine(64, [0xeb, 0xfe, 0x90]);
        Assert.Throws<InvalidOperationException>(() => cpu.Run(Code, Code + 2));
    }

    private static UnicornCpu Machine(int bitness, ReadOnlySpan<byte> code)
    {
        UnicornCpu.RequireLibrary();
        var cpu = new UnicornCpu(bitness);
        cpu.Map(Code, code.Length);
        cpu.Write(Code, code);
        cpu.Map(Stack, 0x1000);
        cpu[CpuRegister.Rsp] = Stack + 0x800;
        Assert.Equal(code.ToArray(), cpu.Read(Code, code.Length));
        return cpu;
    }
}
