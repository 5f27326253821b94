using System.Globalization;
using System.Text.Json;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary><c>pvpatch verify</c> on cores of whole machines, as QEMU's dump-guest-memory (virsh dump --memory-only) gives them.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class DumpTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string, string, CoreForm> Rest
    {
        get
        {
            var cells = new TheoryData<string, string, CoreForm>();
            foreach (string kernel in (string[])["bullseye", "bookworm", "trixie", "sid"])
            {
                cells.Add(kernel, "native", kernel == "bookworm" ? CoreForm.Paged : CoreForm.Physical);
                cells.Add(kernel, "kvm-0x22a2-2cpu", CoreForm.Physical);
                cells.Add(kernel, "xen-2cpu", CoreForm.Physical);
            }

            cells.Add("bookworm", "xen-1cpu", CoreForm.Paged);
            cells.Add("bookworm-i386", "native", CoreForm.Physical);
            return cells;
        }
    }

    [Fact]
    public void A_core_of_a_machine_with_KASLR_tells_the_backend_and_every_site_matches() => Check("bookworm", "native", CoreForm.Physical);

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void A_core_of_the_matrix_tells_the_backend_and_every_site_matches(string kernel, string boot, CoreForm form) =>
        Check(kernel, boot, form);

    private void Check(string kernel, string boot, CoreForm form)
    {
        PackageRequest request = TestedKernels.Named(kernel);
        BootConfiguration configuration = BootConfiguration.Named(boot);
        bool moves = boot == "native" && request.Architecture == "amd64";
        BootedKernel booted = fixture.Boot(request, configuration.Options with { Core = form, MemoryMiB = 384, Kaslr = moves });
        JsonElement early = Verify(booted, booted.AfterPatchingCore!, configuration);
        Assert.Equal(Count(early, "sites"), Count(early, "compared"));

        // The init sections are gone; most sites are not in them, and none of a 32-bit kernel.
        JsonElement ready = Verify(booted, booted.ReadyCore!, configuration);
        Assert.Equal(Count(ready, "sites"), Count(ready, "compared") + Count(ready, "freed"));
        Assert.InRange(Count(ready, "freed"), request.Architecture == "amd64" ? 1 : 0, Count(ready, "sites") / 4);

        // Asked for the right backend; or for another one, which no host can make the same of. 32-bit kernels have none of these.
        PvPatchTool.Verify(booted.ImagePath, booted.ReadyCore!, 0, ["--backend", configuration.Machine.Backend, .. Settings(ready)]);
        string other = configuration.Machine.Backend == "native" ? "xen" : "native";
        if (request.Architecture == "amd64")
        {
            JsonElement refused = PvPatchTool.Verify(booted.ImagePath, booted.ReadyCore!, 6, "--backend", other);
            Assert.Equal("PV7008", refused.GetProperty("diagnostics")[0].GetProperty("code").GetString());
        }
    }

    private JsonElement Verify(BootedKernel booted, string core, BootConfiguration configuration)
    {
        JsonElement result = PvPatchTool.Verify(booted.ImagePath, core);
        JsonElement memory = result.GetProperty("memory");
        output.WriteLine(
            $"{booted.Package!.Package} {configuration.Name}: {result.GetProperty("state")} for {result.GetProperty("backend")}, "
                + $"{Count(result, "compared")} of {Count(result, "sites")} compared, "
            + $"{memory.GetProperty("addresses")} {memory.GetProperty("displacement")}, found by {memory.GetProperty("foundBy")}, "
                + $"slide {memory.GetProperty("slide")}");
        foreach (JsonElement diagnostic in result.GetProperty("diagnostics").EnumerateArray())
        {
            output.WriteLine(
                $"  {diagnostic.GetProperty("severity")} {diagnostic.GetProperty("code")} {diagnostic.GetProperty("message")}: "
                + $"{diagnostic.GetProperty("found")}");
            Assert.NotEqual("error", diagnostic.GetProperty("severity").GetString());
        }

        Assert.Equal("patched", result.GetProperty("state").GetString());
        Assert.Equal(configuration.Machine.Backend, result.GetProperty("backend").GetString()!.Split(' ')[0]);
        Assert.Equal(Count(result, "compared"), Count(result, "patched"));
        Assert.Equal(booted.Slide,
            ulong.Parse(memory.GetProperty("slide").GetString()!.AsSpan(3), NumberStyles.HexNumber, CultureInfo.InvariantCulture));
        return result;
    }

    // "kvm --cpus 2": the name is what asks for just that plan.
    private static string[] Settings(JsonElement result) => result.GetProperty("backend").GetString()!.Split(' ')[1..];

    private static int Count(JsonElement result, string name) => result.GetProperty("counts").GetProperty(name).GetInt32();
}
