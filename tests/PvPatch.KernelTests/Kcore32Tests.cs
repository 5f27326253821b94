using System.IO.Compression;
using System.Text.Json;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>/proc/kcore of a 32-bit kernel, its first part copied out of the guest: .NET does not run there.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
[Trait("Category", "Matrix")]
public sealed class Kcore32Tests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    // Memory comes in order of its addresses, so the kernel's 16 MiB and some are within the first 64.
    private const int CopiedMiB = 64;

    [Fact]
    public void The_first_part_of_a_32_bit_kcore_is_enough()
    {
        Require.KernelBooting();
        string path = fixture.Fetch(Kernels.BookwormI386).ImagePath;
        var program = new GuestProgram { Script = $"dd if=/proc/kcore bs=1M count={CopiedMiB} 2>/dev/null | gzip | base64\n" };
        string file = Path.GetTempFileName();
        try
        {
            using (QemuMachine machine = QemuMachine.Start(
                path, new MachineOptions { Architecture = "i386" }, new Dictionary<string, ulong>(), [], program))
            {
                machine.RunTo(BootPoint.Ready);
                using GZipStream packed = new(
                    new MemoryStream(Convert.FromBase64String(machine.ReadReport().Output)), CompressionMode.Decompress);
                using FileStream copy = File.Create(file);
                packed.CopyTo(copy);
            }

            JsonElement result = PvPatchTool.Verify(path, file);

            output.WriteLine(
                $"{new FileInfo(file).Length} bytes: {result.GetProperty("memory")} {result.GetProperty("counts")} "
                + $"{result.GetProperty("diagnostics")}");
            JsonElement counts = result.GetProperty("counts");
            Assert.Equal("patched", result.GetProperty("state").GetString());
            Assert.Equal("native", result.GetProperty("backend").GetString());
            Assert.Equal("virtual", result.GetProperty("memory").GetProperty("addresses").GetString());
            Assert.Equal(counts.GetProperty("sites").GetInt32(), counts.GetProperty("patched").GetInt32());
            Assert.Contains(result.GetProperty("diagnostics").EnumerateArray(), static d => d.GetProperty("code").GetString() == "PV6125");
        }
        finally
        {
            File.Delete(file);
        }
    }
}
