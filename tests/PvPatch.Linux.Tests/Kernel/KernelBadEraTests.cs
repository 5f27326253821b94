using System.Buffers.Binary;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>Images that are no kernels, or of kernels that cannot be planned: told apart by what they have instead.</summary>
public sealed class KernelBadEraTests
{
    [Fact]
    public void The_unbroken_kernel_opens() => Assert.Equal(SyntheticOps.Names.Count + 4, SyntheticKernel.Complete().Open().Sites.Count);

    [Fact]
    public void A_file_with_neither_sites_nor_alternatives_is_no_kernel()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.UnionWith([".parainstructions", ".altinstructions"]);
        PatchDiagnostic error = KernelErrors.Open(kernel, KernelDiagnosticCodes.NoSiteTable);
        Assert.Equal("neither .parainstructions nor .altinstructions", error.Found);
    }

    [Fact]
    public void A_kernel_without_site_table_is_told_how_many_alternatives_it_has_instead()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".parainstructions");
        PatchDiagnostic error = KernelErrors.Open(kernel, KernelDiagnosticCodes.NoSiteTable);
        Assert.Equal(".altinstructions with 3 records, none of them a direct call", error.Found);
        Assert.Contains("CONFIG_PARAVIRT", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void A_direct_call_whose_replacement_is_no_call_is_refused()
    {
        // Records of 14 bytes, ALT_CALL_ALWAYS (0x00020075); what lies at the replacement is the first alternative's cli.
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong site = SyntheticKernel.Text + 0x1000;
        kernel.AlternativesTable = [
            .. SyntheticKernel.Alternative14(0, site, 0x00020075, 6, 5), .. SyntheticKernel.Alternative14(1, site, 0x00010110, 6, 1)];
        kernel.AddAlternative(site, SyntheticKernel.XenPv, true, 0xe8, 0, 0, 0, 0); // room for five bytes
        kernel.Without.Add(".parainstructions");
        Assert.Equal(site, KernelErrors.Open(kernel, KernelDiagnosticCodes.AlternativeUnknown).Address!.Value.Value);
    }

    [Fact]
    public void An_empty_site_table_is_no_site_table()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = [];
        KernelErrors.Open(kernel, KernelDiagnosticCodes.NoSiteTable);
    }

    [Fact]
    public void A_site_table_without_bytes_in_the_file_is_no_site_table()
    {
        // Debug files have all sections, those that are loaded without their bytes: type 8. The table is section 6.
        byte[] file = SyntheticKernel.Complete().Build();
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(40)) + (6 * 64);
        Assert.Equal(SyntheticKernel.SiteTableAddress, BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(header + 16)));
        KernelErrors.Open(file.With32(header + 4, 8), KernelDiagnosticCodes.NoSiteTable);
    }

    [Fact]
    public void A_direct_call_of_6_8_at_a_site_of_the_table_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.AddAlternative(SyntheticKernel.Text + 0x1000, SyntheticKernel.XenPv, true, 0xe8, 0, 0, 0, 0);
        kernel.AlternativesTable = SyntheticKernel.Alternative14(0, SyntheticKernel.Text + 0x1000, 0x00030110, 6, 5);
        Assert.Equal(KernelDiagnosticCodes.AlternativeUnknown, KernelErrors.Plan(kernel).Code);
    }

    [Fact]
    public void A_file_that_is_not_linked_has_no_addresses_to_patch_at()
    {
        byte[] file = SyntheticKernel.Complete().Build().With16(16, (ushort)ElfFileType.Relocatable);
        KernelErrors.Open(file, KernelDiagnosticCodes.ElfNotSupported);
    }

    [Fact]
    public void Thread_local_sections_have_no_addresses_of_their_own_and_hold_no_sites()
    {
        // Such a section may have the addresses of another one. Here .init.text (index 5) says it is one, at the address of .text.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), SyntheticKernel.XenPv, true, 0xfa);
        kernel.AddSite("irq.irq_enable", init: true);
        kernel.Open();
        byte[] file = kernel.Build();
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(40)) + (5 * 64);
        Assert.Equal(SyntheticKernel.InitText, BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(header + 16)));
        KernelErrors.Open(file.With64(header + 8, 0x406).With64(header + 16, SyntheticKernel.Text), DiagnosticCodes.SiteOutsideImage);
    }

    [Fact]
    public void The_era_needs_its_alternatives()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".altinstructions");
        KernelErrors.Open(kernel, KernelDiagnosticCodes.ElfSectionMissing);
    }

    [Fact]
    public void Alternatives_of_no_known_form_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.AlternativesTable = kernel.AlternativesBytes()[..^1];
        KernelErrors.Open(kernel, KernelDiagnosticCodes.AltFormatUnknown);
    }
}
