using System.Buffers.Binary;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Paravirt;

namespace PvPatch.KernelTests;

/// <summary>
/// What a booted 6.1 kernel made of its sites, told from its own table of pointers and without any plan: the dumps are
/// those of a kernel that has patched itself for the hypervisor it found.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class PatchedSitesTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    /// <summary>0f 1f 00 nopl (%rax), what fills a site behind an instruction of three bytes.</summary>
    private const string Nop3 = "0f1f00";

    /// <summary>c6 07 00 movb $0,(%rdi): queued_spin_unlock. 48 31 c0 xor %rax,%rax: vcpu_is_preempted.</summary>
    private static readonly string[] s_locks = [$"c60700{Nop3}", $"4831c0{Nop3}"];

    /// <summary>
    /// The instructions of a processor that is not Xen's: 9c 58 pushf; pop %rax, fb sti, fa cli, 0f 09 wbinvd, 0f 20 d0
    /// mov %cr2,%rax, 0f 20 d8 mov %cr3,%rax, 0f 22 df mov %rdi,%cr3, 48 89 f8 mov %rdi,%rax; the rest is one nop.
    /// </summary>
    private static readonly string[] s_native =
    [
        "9c580f1f4000", "fb0f1f440000", "fa0f1f440000", "0f090f1f4000",
        $"0f20d0{Nop3}", $"0f20d8{Nop3}", $"0f22df{Nop3}", $"4889f8{Nop3}",
    ];

    [Fact]
    public void Under_xen_every_site_of_6_1_calls_what_the_table_holds()
    {
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm, new MachineOptions { Xen = new Harness.XenOptions() });

        Assert.Empty(Exceptions(kernel, s_locks));

        // The control: a kernel that found no Xen does not obey this.
        Assert.True(Exceptions(fixture.Boot(Kernels.Bookworm), s_locks).Count > 1000);
    }

    [Fact]
    public void As_kvm_guest_every_site_of_6_1_is_inline_or_calls_what_the_table_holds()
    {
        MachineOptions options = new() { Cpu = "max,-monitor", Processors = "1,maxcpus=2", Append = "noreplace-smp", KvmFeatures = 0x22a2 };
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm, options);

        Assert.Empty(Exceptions(kernel, s_native));

        // The control: natively spin locks are inline.
        Assert.NotEmpty(Exceptions(fixture.Boot(Kernels.Bookworm), s_native));
    }

    private List<string> Exceptions(BootedKernel kernel, string[] inline)
    {
        if (!KernelImage.TryOpen(kernel.ImagePath, out KernelImage? image, out PatchDiagnostic? error))
        {
            throw new PatchException(error);
        }

        Dictionary<string, int> kinds = [];
        List<string> exceptions = [];
        foreach (ParaInstruction record in image.Records)
        {
            ulong site = record.Address.Value;
            Assert.Equal(6, record.Length);

            // ff 15 disp32: call *slot(%rip)
            Assert.True(image.Elf.TryGetBytes(record.Address, 6, out Memory<byte> disk));
            Assert.True(disk.Span.StartsWith((ReadOnlySpan<byte>)[0xff, 0x15]));
            ulong slot = unchecked(site + 6 + (ulong)BinaryPrimitives.ReadInt32LittleEndian(disk.Span[2..]));
            ulong function = BinaryPrimitives.ReadUInt64LittleEndian(kernel.AfterPatching.ReadKernel(slot, 8));

            byte[] bytes = kernel.AfterPatching.ReadKernel(site, 6);
            string text = Convert.ToHexStringLower(bytes);
            string expected = function == kernel.Report.Symbol("_paravirt_nop")
                ? "660f1f440000" // nopw 0(%rax,%rax)
                : Call(site, function == 0 ? kernel.Report.Symbol("paravirt_BUG") : function);
            string kind = text == expected ? (bytes[0] == 0xe8 ? "call" : "nop") : inline.Contains(text) ? "inline" : "exception";
            kinds[kind] = kinds.GetValueOrDefault(kind) + 1;
            if (kind == "exception")
            {
                exceptions.Add($"{site:x}: {text}, not {expected}");
            }
        }

        output.WriteLine(string.Join(", ", kinds.Select(static pair => $"{pair.Value} {pair.Key}")));
        return exceptions;
    }

    /// <summary>e8 rel32, 90: a call and a nop.</summary>
    private static string Call(ulong site, ulong target)
    {
        byte[] bytes = [0xe8, 0, 0, 0, 0, 0x90];
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(1), unchecked((int)(target - (site + 5))));
        return Convert.ToHexStringLower(bytes);
    }
}
