namespace PvPatch.KernelTests.Harness;

/// <summary>Whether the whole machine's memory is kept as an ELF core at both stops of a boot, and in which form.</summary>
public enum CoreForm
{
    /// <summary>No core is written.</summary>
    None,

    /// <summary>Segments by physical address, their virtual addresses are 0: QEMU's dump-guest-memory as it is mostly used.</summary>
    Physical,

    /// <summary>Segments by virtual address, as the page tables of the stopped processors map memory (dump-guest-memory -p).</summary>
    Paged,
}
