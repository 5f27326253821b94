using PvPatch.Linux.Files;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>Site tables that lie about where sites are, how long they are and what they call.</summary>
public sealed class KernelBadSiteTableTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(15)]
    public void A_site_table_cut_off_is_refused(int bytes)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = kernel.SiteTableBytes()[..^bytes];
        PatchDiagnostic error = KernelErrors.Open(kernel, DiagnosticCodes.TableStride);
        Assert.NotNull(error.FileOffset);
    }

    [Theory]
    [InlineData(8)]
    [InlineData(4)]
    [InlineData(1)]
    public void Records_of_another_size_name_addresses_outside_the_code(int shift)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = [.. kernel.SiteTableBytes()[shift..], .. new byte[shift]];
        KernelErrors.Open(kernel, DiagnosticCodes.SiteOutsideImage);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(1UL)]
    [InlineData(SyntheticKernel.Text - 1)]
    [InlineData(SyntheticKernel.Text + 0x1ffb)]
    [InlineData(SyntheticKernel.OpsTable)]
    [InlineData(SyntheticKernel.Bss)]
    [InlineData(0x7fffffffffffffffUL)]
    [InlineData(0xfffffffffffffffbUL)]
    [InlineData(0xffffffffffffffffUL)]
    public void A_site_outside_the_code_is_reported_with_its_record(ulong address)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records[3] = kernel.Records[3] with { Address = address };
        PatchDiagnostic error = KernelErrors.Open(kernel, DiagnosticCodes.SiteOutsideImage);
        Assert.True(kernel.Elf().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal((3, address, section.FileOffset + 48), (error.SiteIndex, error.Address!.Value.Value, error.FileOffset));
    }

    [Fact]
    public void A_site_twice_in_the_table_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records.Add(kernel.Records[0]);
        PatchDiagnostic error = KernelErrors.Open(kernel, DiagnosticCodes.SiteDuplicate);
        Assert.NotNull(error.FileOffset);
    }

    [Fact]
    public void Sites_that_share_bytes_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ParaInstruction first = kernel.Records[0];
        kernel.Records.Insert(1, first with { Address = first.Address + 5 });
        PatchDiagnostic error = KernelErrors.Open(kernel, DiagnosticCodes.SiteOverlap);
        Assert.True(kernel.Elf().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal((1, section.FileOffset + 16), (error.SiteIndex, error.FileOffset));
    }

    [Theory]
    [InlineData(0, DiagnosticCodes.SiteZeroLength)]
    [InlineData(255, DiagnosticCodes.SiteTooLong)]
    public void A_site_of_impossible_length_is_refused(byte length, string code)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong address = SyntheticKernel.Text + 0x1800;
        kernel.Records.Add(new ParaInstruction(address, 0, length, 0));
        Assert.Equal(address, KernelErrors.Open(kernel, code).Address!.Value.Value);
    }

    [Theory]
    [InlineData(23)]
    [InlineData(255)]
    public void A_type_beyond_the_slots_is_refused(byte type)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records[2] = kernel.Records[2] with { Type = type };
        Assert.Equal(DiagnosticCodes.SiteUnknownSlot, KernelErrors.Plan(kernel).Code);
    }

    [Fact]
    public void A_site_that_calls_through_another_slot_than_its_record_says_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong site = kernel.AddSite("irq.irq_disable", through: SyntheticOps.IndexOf("irq.irq_enable"));
        PatchDiagnostic error = KernelErrors.Plan(kernel);
        Assert.Equal((DiagnosticCodes.WrongSlotOperand, site), (error.Code, error.Address!.Value.Value));
        Assert.Contains("irq.irq_enable", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void An_image_patched_already_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        KernelImage image = kernel.Open();
        KernelPlanTests.Plan(image).Apply(image.Code);
        PatchDiagnostic error = KernelErrors.Open(image.Elf.File.ToArray(), KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Equal("0 of 27 sites that agree", error.Found);
        Assert.Contains("patched already", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void Half_of_the_sites_are_not_most_of_them()
    {
        var kernel = new SyntheticKernel();
        for (int i = 0; i < 6; i++)
        {
            ulong site = kernel.AddSite("irq.halt");
            if (i % 2 == 0)
            {
                kernel.Put(site, 0xe8, 0, 0, 0, 0, 0x90);
            }
        }

        Assert.Equal("3 of 6 sites that agree", KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound).Found);
    }

    [Fact]
    public void A_single_site_patched_already_is_refused_when_planned()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(SyntheticKernel.Text + 0x1000, 0xfa, 0x0f, 0x1f, 0x44, 0, 0);
        PatchDiagnostic error = KernelErrors.Plan(kernel);
        Assert.Equal((DiagnosticCodes.UnknownBytes, "fa 0f 1f 44 00 00"), (error.Code, error.Found));
    }
}
