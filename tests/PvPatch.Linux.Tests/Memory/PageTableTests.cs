using PvPatch.Linux.Dumps;
using PvPatch.Linux.Verify;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>Kernels that only page tables lead to.</summary>
public sealed class PageTableTests
{
    private const int MemorySize = 48 << 20;
    private const int Tables = 0x300000;
    private static readonly DumpedKernel s_kernel = new();

    [Theory]
    [InlineData(0)]
    [InlineData(0x1e000000)]
    public void A_kernel_in_scattered_pages_is_found(long slide)
    {
        using MemoryFile file = Scattered(s_kernel.Boot(s_kernel.Native, slide)).Core().Open();
        AssertFound(file, slide);
    }

    [Fact]
    public void So_it_is_in_raw_memory_of_a_machine()
    {
        MachineTables machine = Scattered(s_kernel.Boot(s_kernel.Native, 0x400000));
        using MemoryFile file = TestCore.Open(machine.Memory.ToArray(), 0);
        AssertFound(file, 0x400000);
    }

    [Fact]
    public void Large_pages_are_followed()
    {
        const long slide = 0x600000;
        byte[] flat = s_kernel.Boot(s_kernel.Native, slide).Flat();
        var machine = new MachineTables(MemorySize, Tables);
        for (int at = 0; at < flat.Length; at += MachineTables.LargePageSize)
        {
            // From the end of memory down, so no two follow each other.
            byte[] page = flat[at..Math.Min(at + MachineTables.LargePageSize, flat.Length)];
            machine.MapLarge(s_kernel.Text + slide + (ulong)at, MemorySize - MachineTables.LargePageSize - at, page);
        }

        using MemoryFile file = machine.Core().Open();
        AssertFound(file, slide);
    }

    [Fact]
    public void The_kernel_that_tables_lead_to_is_taken_and_not_a_copy()
    {
        // The copy lies in one piece and is as it was before the kernel patched itself.
        MachineTables machine = Scattered(s_kernel.Boot(s_kernel.Native));
        byte[] copy = s_kernel.Boot(null).Flat();
        copy.CopyTo(machine.Memory[0x400000..]);
        using MemoryFile file = machine.Core().Open();
        AssertFound(file, 0);
    }

    [Fact]
    public void A_copy_is_better_than_nothing()
    {
        byte[] copy = s_kernel.Boot(s_kernel.Native).Flat();
        var machine = new MachineTables(MemorySize, Tables);
        copy.CopyTo(machine.Memory[0x400000..]);
        using MemoryFile file = machine.Core().Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.Signature, memory.FoundBy);
        Assert.True(memory.IsPhysical);
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(0x100000, false)]
    public void A_physical_base_of_raw_memory_is_right_where_the_kernels_own_tables_say_so(ulong start, bool isRight)
    {
        const long slide = 0x600000;
        const int physical = 0x400000;
        byte[] flat = s_kernel.Boot(s_kernel.Native, slide).Flat();
        var machine = new MachineTables(MemorySize, physical + 0x500000); // within the kernel, where no section is
        for (int at = 0; at < flat.Length; at += MachineTables.PageSize)
        {
            ReadOnlySpan<byte> page = flat.AsSpan(at, Math.Min(MachineTables.PageSize, flat.Length - at));
            if (page.ContainsAnyExcept((byte)0))
            {
                page.CopyTo(machine.Memory[(physical + at)..]);
            }

            if (at % MachineTables.LargePageSize == 0)
            {
                machine.MapLarge(s_kernel.Text + slide + (ulong)at, physical + at, []);
            }
        }

        using MemoryFile file = TestCore.Open(machine.Memory.ToArray(), start);
        KernelMemory memory = s_kernel.Locate(file);
        Assert.Equal(slide, memory.Slide);
        Assert.Equal(isRight ? [] : ["PV6130"], memory.Diagnostics.Select(static d => d.Code));
    }

    [Fact]
    public void Tables_that_lead_nowhere_or_to_themselves_are_passed_over()
    {
        var machine = new MachineTables(MemorySize, Tables);
        for (int i = 0; i < 512; i++)
        {
            machine.PutSecond(i, (i % 3) switch { 0 => Tables | 0x63UL, 1 => 0xffffffffff063UL, _ => 0x62UL });
        }

        using MemoryFile file = machine.Core().Open();
        Assert.False(KernelMemoryLocator.TryLocate(s_kernel.Elf, file, out _, out PatchDiagnostic? error));
        Assert.Equal("PV6128", error.Code);

        // Nothing but one page that is a table of every level and leads to itself.
        var own = new MachineTables(MemorySize, 0);
        own.Memory.Clear();
        for (int at = 0; at < MemorySize; at += 8)
        {
            own.Memory[at] = 0x63;
        }

        using MemoryFile same = own.Core().Open();
        Assert.False(KernelMemoryLocator.TryLocate(s_kernel.Elf, same, out _, out error));
        Assert.Equal("PV6128", error.Code);
    }

    // The last page of the image comes first in memory, and none is followed by its neighbour.
    private static MachineTables Scattered(MachineMemory kernel)
    {
        byte[] flat = kernel.Flat();
        var machine = new MachineTables(MemorySize, Tables);
        int free = MemorySize - MachineTables.PageSize;
        for (int at = 0; at < flat.Length; at += MachineTables.PageSize)
        {
            byte[] page = flat[at..Math.Min(at + MachineTables.PageSize, flat.Length)];
            if (page.AsSpan().ContainsAnyExcept((byte)0))
            {
                machine.Map(unchecked(s_kernel.Text + (ulong)kernel.Slide + (ulong)at), free, page);
                free -= 2 * MachineTables.PageSize;
            }
        }

        return machine;
    }

    private static void AssertFound(MemoryFile file, long slide)
    {
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.PageTables, memory.FoundBy);
        Assert.False(memory.IsPhysical);
        Assert.Equal((slide, slide), (memory.Displacement, memory.Slide));
        Assert.Empty(memory.Diagnostics);
        MemoryVerification result = KernelVerifier.Compare([s_kernel.Native, s_kernel.Xen], memory);
        Assert.Equal((MemoryState.Patched, result.Sites.Count), (result.State, result.Compared));
    }
}
