using System.Buffers;
using System.Text.Json;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Verify;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Memory;

public sealed class KernelVerifierTests
{
    private const int All = DumpedKernel.SiteCount + DumpedKernel.InitSiteCount;
    private static readonly DumpedKernel s_kernel = new();
    private static readonly DumpedKernel s_absolute = new(form: SiteForm.Absolute);

    [Theory]
    [InlineData("native", 0)]
    [InlineData("kvm", 0x1e000000)]
    [InlineData("xen", 0x200000)]
    public void The_backend_a_machine_ran_on_is_told(string backend, long slide)
    {
        PatchPlan plan = Plans(s_kernel).Single(p => p.Backend == backend);
        MemoryVerification result = Verify(s_kernel, s_kernel.Boot(plan, slide));

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.Equal(backend, result.Best.Backend);
        Assert.Equal(All, result.Best.Matched);
        Assert.Equal(All, result.Count(MemorySiteState.Patched));
        Assert.Empty(result.Tied);
        Assert.Empty(result.MixedSites());
        Assert.Empty(result.ToDiagnostics());
    }

    [Fact]
    public void Candidates_that_fit_equally_well_are_told()
    {
        PatchPlan again = With(s_kernel.Native, "native on another machine", 0, null);
        using MemoryFile file = s_kernel.Boot(s_kernel.Native).Open();
        MemoryVerification result = KernelVerifier.Compare([s_kernel.Xen, s_kernel.Native, again], s_kernel.Locate(file));

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.Equal("native", result.Best.Backend);
        Assert.Equal("native on another machine", Assert.Single(result.Tied).Backend);
        PatchDiagnostic tie = Assert.Single(result.ToDiagnostics());
        Assert.Equal(("PV6137", DiagnosticSeverity.Info), (tie.Code, tie.Severity));
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(false, 0x1e000000)]
    [InlineData(true, 0)]
    [InlineData(true, 0x1e000000)]
    public void A_dump_taken_before_patching_is_known_as_such_wherever_the_kernel_is(bool isAbsolute, long slide)
    {
        DumpedKernel kernel = isAbsolute ? s_absolute : s_kernel;
        MemoryVerification result = Verify(kernel, kernel.Boot(null, slide));

        Assert.Equal(MemoryState.NotPatched, result.State);
        Assert.Equal(All, result.Count(MemorySiteState.Original));
        Assert.Equal("PV6135", Assert.Single(result.ToDiagnostics()).Code);
    }

    [Fact]
    public void An_original_with_an_address_that_was_not_moved_with_the_kernel_is_no_original()
    {
        MachineMemory machine = s_absolute.Boot(s_absolute.Native, 0x1e000000);
        machine.Put(s_absolute.Site(4), s_absolute.Native[4].OldBytes.ToArray());
        machine.Put(s_absolute.Site(8), s_absolute.Native[8].OldBytes.ToArray()).Relocate(s_absolute.Site(8) + 3, 4);
        MemoryVerification result = Verify(s_absolute, machine);

        Assert.Equal(MemorySiteState.Tampered, result.Sites[4].State);
        Assert.Equal(MemorySiteState.Original, result.Sites[8].State);
        PatchDiagnostic told = result.ToDiagnostics().Single(d => d.SiteIndex == 4);

        // call [0xffffffff82800000 + 4 * 8 + slide]: ff 14 25, then the low half of the address.
        Assert.Contains("ff 14 25 20 00 80 a0 (original)", told.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public void A_32_bit_kernels_originals_are_moved_too()
    {
        var kernel = new DumpedKernel(bitness: 32, form: SiteForm.Absolute);
        using MemoryFile file = kernel.Boot(null, 0x5000000).VirtualCore(is64: false, machine: 3).Open();

        Assert.Equal(MemoryState.NotPatched, KernelVerifier.Compare(Plans(kernel), kernel.Locate(file)).State);
    }

    [Fact]
    public void A_tampered_site_is_told_of_with_what_was_found_and_all_that_may_be_there()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native).Put(s_kernel.Site(4), 0xe9, 0x11, 0x22, 0x33, 0x44, 0x90);
        MemoryVerification result = Verify(s_kernel, machine);

        Assert.Equal(MemoryState.Tampered, result.State);
        Assert.Equal("native", result.Best.Backend);
        Assert.Equal(All - 1, result.Best.Matched);
        PatchDiagnostic told = Assert.Single(result.ToDiagnostics());
        Assert.Equal(("PV6132", DiagnosticSeverity.Error), (told.Code, told.Severity));
        Assert.Equal(s_kernel.Site(4), told.Address!.Value.Value);
        Assert.Equal("e9 11 22 33 44 90", told.Found);
        Assert.Contains("fa 0f 1f 44 00 00 (native, kvm)", told.Expected, StringComparison.Ordinal);
        Assert.Contains("(original)", told.Expected, StringComparison.Ordinal);
        Assert.Contains("(xen)", told.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public void One_changed_byte_is_enough()
    {
        for (int at = 0; at < s_kernel.SiteLength; at++)
        {
            MachineMemory machine = s_kernel.Boot(s_kernel.Kvm);
            machine.At(s_kernel.Site(7))[at] ^= 0x80;

            Assert.Equal(MemorySiteState.Tampered, Verify(s_kernel, machine).Sites[7].State);
        }
    }

    [Fact]
    public void Changes_beside_the_sites_are_not_looked_at()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native);
        machine.At(s_kernel.Site(3) + 6)[0] ^= 1;
        machine.At(s_kernel.Site(3) - 1)[0] ^= 1;

        Assert.True(Verify(s_kernel, machine).IsPatched);
    }

    [Theory]
    [InlineData(0xcc)]
    [InlineData(0x00)]
    [InlineData(0x41)]
    public void The_freed_memory_of_the_start_is_no_tampering(byte filling)
    {
        MemoryVerification result = Verify(s_kernel, s_kernel.Boot(s_kernel.Native).Fill(".init.text", filling));

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.Equal(DumpedKernel.InitSiteCount, result.Count(MemorySiteState.Freed));
        Assert.Equal(DumpedKernel.SiteCount, result.Compared);
        PatchDiagnostic told = Assert.Single(result.ToDiagnostics());
        Assert.Equal(("PV6134", DiagnosticSeverity.Info), (told.Code, told.Severity));
    }

    [Fact]
    public void While_the_start_is_not_over_its_sites_count_like_others()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native).Put(s_kernel.Site(DumpedKernel.SiteCount), 0xe9, 1, 2, 3, 4, 5);
        MemoryVerification result = Verify(s_kernel, machine);

        Assert.Equal(MemorySiteState.Tampered, result.Sites[DumpedKernel.SiteCount].State);
        Assert.Equal(MemoryState.Tampered, result.State);
    }

    [Fact]
    public void Pages_being_freed_just_now_are_freed()
    {
        byte[] poison = [0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc];
        MemoryVerification result = Verify(
            s_kernel, s_kernel.Boot(s_kernel.Native).Put(s_kernel.Site(All - 1), poison).Put(s_kernel.Site(0), poison));

        Assert.Equal(MemorySiteState.Freed, result.Sites[^1].State);
        Assert.Equal(MemorySiteState.Tampered, result.Sites[0].State); // not in memory that is ever freed
    }

    [Fact]
    public void Known_bytes_of_different_backends_are_mixed()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native);
        machine.Put(s_kernel.Site(0), s_kernel.Xen[0].NewBytes.ToArray());
        machine.Put(s_kernel.Site(4), s_kernel.Native[4].OldBytes.ToArray());
        MemoryVerification result = Verify(s_kernel, machine);

        Assert.Equal(MemoryState.Mixed, result.State);
        Assert.Equal("native", result.Best.Backend);
        Assert.Equal([s_kernel.Site(0), s_kernel.Site(4)], result.MixedSites().Select(s => s.Address.Value));
        Assert.Equal(["xen"], result.Sites[0].Backends);
        Assert.True(result.Sites[4].IsOriginal);
        Assert.All(result.ToDiagnostics(), d => Assert.Equal("PV6136", d.Code));
        Assert.Equal(3, result.ToDiagnostics().Count);
    }

    [Fact]
    public void Where_most_sites_are_unknown_the_kernel_is_doubted_and_no_site_accused()
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Xen).Open();
        MemoryVerification result = KernelVerifier.Compare([s_kernel.Native], s_kernel.Locate(file));

        Assert.Equal(MemoryState.NotThisKernel, result.State);
        PatchDiagnostic told = Assert.Single(result.ToDiagnostics(), d => d.Severity == DiagnosticSeverity.Error);
        Assert.Equal("PV6128", told.Code);
        Assert.Null(told.SiteIndex);
    }

    [Fact]
    public void Of_a_dump_cut_short_what_is_there_is_compared()
    {
        byte[] text = s_kernel.Boot(s_kernel.Native)[".text"];
        int end = (int)(s_kernel.Site(10) - s_kernel.Text) + 3; // in the midst of site 10
        using MemoryFile file = TestCore.Open(text[..end], s_kernel.Text);
        MemoryVerification result = KernelVerifier.Compare(Plans(s_kernel), s_kernel.Locate(file));

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.Equal(10, result.Compared);
        Assert.Equal(All - 10, result.Count(MemorySiteState.Unreadable));
        PatchDiagnostic told = Assert.Single(result.ToDiagnostics());
        Assert.Equal("PV6133", told.Code);
        Assert.Equal(s_kernel.Site(10), told.Address!.Value.Value);
    }

    [Fact]
    public void Memory_without_any_site_is_no_good_memory()
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Native).VirtualCore(true, 62, ".text", ".init.text").Open();
        MemoryVerification result = KernelVerifier.Compare(Plans(s_kernel), s_kernel.Locate(file));

        Assert.Equal(MemoryState.NothingCompared, result.State);
        Assert.Equal("PV6138", Assert.Single(result.ToDiagnostics()).Code);
    }

    [Fact]
    public void Sites_only_some_candidates_have_are_compared_with_those()
    {
        PatchPlan few = With(s_kernel.Xen, "few", 20, null);
        using MemoryFile file = s_kernel.Boot(s_kernel.Native).Open();
        MemoryVerification result = KernelVerifier.Compare([few, s_kernel.Native], s_kernel.Locate(file));

        Assert.Equal(All, result.Sites.Count);
        Assert.Equal("native", result.Best.Backend);
        Assert.True(result.IsPatched);
        Assert.False(result.Sites[0].Matches(0));
    }

    [Fact]
    public void A_site_that_a_candidate_leaves_alone_is_patched_where_it_is_original()
    {
        PatchPlan lazy = With(s_absolute.Native, "lazy", 0, 0);
        MachineMemory machine = s_absolute.Boot(s_absolute.Native, 0x1e000000);
        machine.Put(s_absolute.Site(0), s_absolute.Native[0].OldBytes.ToArray()).Relocate(s_absolute.Site(0) + 3, 4);
        using MemoryFile file = machine.Open();
        MemoryVerification result = KernelVerifier.Compare([lazy], s_absolute.Locate(file));

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.True(result.Sites[0].IsOriginal && result.Sites[0].Matches(0));
    }

    [Fact]
    public void The_number_of_sites_told_of_is_bounded()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native);
        for (int i = 0; i < 10; i++)
        {
            machine.At(s_kernel.Site(i)).Slice(0, 6).Fill(0x41);
        }

        IReadOnlyList<PatchDiagnostic> told = Verify(s_kernel, machine).ToDiagnostics(4);
        Assert.Equal(5, told.Count);
        Assert.StartsWith("6 more", told[^1].Message, StringComparison.Ordinal);
        Assert.StartsWith("10 of 30 sites", Assert.Single(Verify(s_kernel, machine).ToDiagnostics(0)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Candidates_must_be_given()
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Native).Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Throws<ArgumentException>(() => KernelVerifier.Compare((PatchPlan[])[], memory));
        Assert.Throws<ArgumentException>(() => KernelVerifier.Compare([.. Enumerable.Repeat(s_kernel.Native, 65)], memory));
        Assert.Equal(63, KernelVerifier.Compare([.. Enumerable.Repeat(s_kernel.Native, 64)], memory).Tied.Count);
    }

    [Fact]
    public void A_result_is_written_as_json()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x200000).Put(s_kernel.Site(4), 1, 2, 3, 4, 5, 6).Fill(".init.text", 0xcc);
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer))
        {
            MemoryVerificationJson.Write(Verify(s_kernel, machine), json);
        }

        using JsonDocument document = JsonDocument.Parse(buffer.WrittenMemory);
        JsonElement root = document.RootElement;
        Assert.Equal("pvpatch-verification", root.GetProperty("format").GetString());
        Assert.Equal("tampered", root.GetProperty("state").GetString());
        Assert.Equal("native", root.GetProperty("backend").GetString());
        Assert.Equal("+0x200000", root.GetProperty("memory").GetProperty("slide").GetString());
        Assert.Equal(1, root.GetProperty("counts").GetProperty("tampered").GetInt32());
        Assert.Equal(DumpedKernel.InitSiteCount, root.GetProperty("counts").GetProperty("freed").GetInt32());
        JsonElement site = root.GetProperty("sites")[0];
        Assert.Equal("0xffffffff81000228", site.GetProperty("address").GetString());
        Assert.Equal("01 02 03 04 05 06", site.GetProperty("found").GetString());
        Assert.Equal(1 + DumpedKernel.InitSiteCount, root.GetProperty("sites").GetArrayLength());
    }

    internal static PatchPlan[] Plans(DumpedKernel kernel) => [kernel.Native, kernel.Kvm, kernel.Xen];

    /// <summary>A plan with a name of its own, some of its sites left out or one left alone.</summary>
    internal static PatchPlan With(PatchPlan plan, string name, int skip, int? leave)
    {
        var copy = new PlanBuilder(name, plan.Rules, plan.Bitness, plan.Segments);
        for (int i = skip; i < plan.Count; i++)
        {
            bool left = leave == i;
            copy.Add(plan[i].Address, plan[i].OldBytes, left ? plan[i].OldBytes : plan[i].NewBytes, left ? new PlanOutcome
            {
                Label = plan[
                i].Label,
                Action = PatchAction.LeaveAlone,
                Reason = PatchReason.TooSmall
            } : plan[i].Outcome);
        }

        return copy.Build();
    }

    private static MemoryVerification Verify(DumpedKernel kernel, MachineMemory machine)
    {
        using MemoryFile file = machine.Open();
        return KernelVerifier.Compare(Plans(kernel), kernel.Locate(file));
    }
}
