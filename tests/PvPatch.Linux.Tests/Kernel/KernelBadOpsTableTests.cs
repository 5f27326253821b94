using System.Buffers.Binary;
using PvPatch.Linux.Tests.Support;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>Ops tables that cannot be found, or hold what no ops table holds.</summary>
public sealed class KernelBadOpsTableTests
{
    [Theory]
    [InlineData(1UL)]
    [InlineData(SyntheticKernel.OpsTable)]
    [InlineData(SyntheticKernel.Bss)]
    [InlineData(SyntheticKernel.Text + 0x2000)]
    [InlineData(0xffffffffffffffffUL)]
    public void An_ops_table_that_holds_anything_but_code_is_refused(ulong word)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Pointers[7] = word;
        PatchDiagnostic error = KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Contains("irq.halt", error.Message, StringComparison.Ordinal);
        Assert.Equal(SyntheticKernel.OpsTable + 56, error.Address!.Value.Value);
    }

    [Theory]
    [InlineData(SyntheticKernel.Bss, 0)]
    [InlineData(SyntheticKernel.OpsTable + 8, 22)]
    [InlineData(SyntheticKernel.Data + 0x10000, 0)]
    public void An_ops_table_without_bytes_in_the_file_is_refused(ulong table, int firstMissing)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        foreach (ParaInstruction record in kernel.Records)
        {
            byte[] call = [0xff, 0x15, 0, 0, 0, 0];
            BinaryPrimitives.WriteInt32LittleEndian(call.AsSpan(2), (int)(table + (ulong)(record.Type * 8) - (record.Address.Value + 6)));
            kernel.Put(record.Address.Value, call);
        }

        PatchDiagnostic error = KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Equal(table + (ulong)(8 * firstMissing), error.Address!.Value.Value);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(SyntheticKernel.Text + 0x210)]
    public void Slots_that_are_empty_by_design_must_hold_one_function(ulong other)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Pointers[SyntheticOps.IndexOf("mmu.release_pmd")] = other;
        PatchDiagnostic error = KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Contains("empty function", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("89 f8 c3")]
    [InlineData("f3 0f 1e fa 90 c3")]
    [InlineData("ff 25 00 00 00 00")]
    [InlineData("e8 00 00 00 00")]
    [InlineData("06")]
    public void The_empty_function_must_be_empty(string code)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(SyntheticKernel.EmptyFunction, Bytes.FromHex(code));
        KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound);
    }

    [Fact]
    public void A_layout_without_slots_that_are_empty_by_design_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = SyntheticOps.FlatBtf(23 * 8, [.. Enumerable.Range(0, 23).Select(i => ($"op.s{i}", 8 * i))]);
        KernelErrors.Open(kernel, KernelDiagnosticCodes.OpsTableNotFound);
    }
}
