using PvPatch.Linux.Objects;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Objects;

/// <summary>Sites that relocations tell of, in object files and in files linked with --emit-relocs, of C and of assembly.</summary>
public sealed class RelocationSitesTests
{
    private const string C = """
        struct ops { void (*disable)(void); void (*enable)(void); unsigned long (*read)(unsigned long); };
        extern struct ops pv_ops;
        extern void native_enable(void);
        int counter;
        void (*volatile pointer)(void);
        void one(void) { pv_ops.disable(); counter++; pv_ops.enable(); counter--; }
        unsigned long two(unsigned long a) { return pv_ops.read(a) + pv_ops.read(a + 1); }
        void three(void) { native_enable(); counter++; native_enable(); counter++; }
        void four(void) { native_enable(); }            // a jump: no site
        void five(void) { pv_ops.enable(); }            // a jump through the table: a site
        void six(void) { pointer = native_enable; }     // a pointer: no site
        """;

    private const string Definitions = """

        .globl pv_ops, native_enable
        native_enable: ret
        .data
        pv_ops: .skip 24
        .size pv_ops, 24
        .skip 0x800
        """;

    private static readonly SiteNames s_names = new()
    {
        Layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("disable").Slot("enable").Slot("read")
            .Slot("native", convention: CallConvention.CalleeSave))),
        Tables = new Dictionary<string, Range> { ["pv_ops"] = 0..3 },
        Functions = new Dictionary<string, int> { ["native_enable"] = 3 },
    };

    [Theory]
    [InlineData(64, false)]
    [InlineData(64, true)]
    [InlineData(32, false)]
    [InlineData(32, true)]
    public void Calls_of_compiled_code_are_found(int bitness, bool isLinked)
    {
        byte[] file = IncludeFile.Compile(C, bitness);
        if (isLinked)
        {
            file = LinkAll(bitness, ["--emit-relocs"], file, Tools.Assemble(Definitions, bitness));
        }

        ObjectFile opened = Open(file);
        Assert.True(opened.TryFindSites(s_names, out RelocatedSites? found, out IReadOnlyList<PatchDiagnostic> diagnostics));

        Assert.Equal([0, 1, 1, 2, 2, 3, 3], found.Sites.Select(static s => s.Slot).Order());
        Assert.All(found.Sites, s => Assert.Equal(s.Slot == 3 ? 5 : 6, s.Budget));
        Assert.All(found.Sites, s => Assert.Equal(
            (s.Slot == 3 ? CallConvention.CalleeSave : CallConvention.SysV).DestroyedBy(bitness), s.Clobbers));
        Assert.Equal(
            (KernelDiagnosticCodes.ReferenceNotACall, DiagnosticSeverity.Info), (Assert.Single(diagnostics).Code, diagnostics[0].Severity));
        Assert.StartsWith("2 references", diagnostics[0].Message, StringComparison.Ordinal);

        // readelf names the places that relocations of code write to; each site and each other reference has one of them.
        ulong[] places = PlacesOf(file, opened);
        Assert.Equal(9, places.Length);
        Assert.Equal(7, found.Sites.Count(s => places.Any(p => p > s.Address.Value && p < s.End.Value)));
        Assert.Equal(isLinked, found.SlotAddresses.Take(3).All(static a => !a.IsZero));
        Assert.Equal(isLinked, !found.SlotFunctions[3].IsZero);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void What_was_found_is_planned(int bitness)
    {
        byte[] file = LinkAll(bitness, ["-q"], IncludeFile.Compile(C, bitness), Tools.Assemble(Definitions, bitness));
        ObjectFile opened = Open(file);
        RelocatedSites found = opened.FindSites(s_names);
        var backend = Backend.Create(
            "quiet", s_names.Layout, static b => b.Nop("ops.disable").Nop("ops.enable").Nop("ops.read").Nop("ops.native"));
        PatchPlan plan = new PatchPlanner().Plan(
            opened.Code, found.Sites, backend,
            new PlanOptions { SlotAddresses = found.SlotAddresses, SlotFunctions = found.SlotFunctions });
        Assert.All(plan, static s => Assert.Equal(PatchAction.Nop, s.Action));
        byte[] before = [.. file];
        Assert.Equal(7, plan.Apply(opened.Code).Written);
        Assert.NotEqual(before, file);
        plan.Revert(opened.Code);
        Assert.Equal(before, file);
    }

    [Fact]
    public void Calls_of_assembly_are_found_in_every_form()
    {
        const string Source = """
            f:  call *pv_ops+8(%rip)
                jmp *pv_ops(%rip)
                call *pv_ops+16
                call *pv_ops+4(%rip)
                call *pv_ops(,%rax,8)
                call *%fs:pv_ops
                mov pv_ops(%rip), %rax
                call native_enable
                jne native_enable
                movabs $native_enable, %rax
            g:  .quad native_enable
                .byte 0x48
            h:  call *pv_ops(%rip)
                call *other(%rip)
            """;
        foreach (bool isLinked in (bool[])[false, true])
        {
            byte[] file = Tools.Assemble(Source + "\n", 64);
            if (isLinked)
            {
                file = LinkAll(64, ["--emit-relocs", "--defsym=other=pv_ops+0x800"], file, Tools.Assemble(Definitions, 64));
            }

            Assert.True(Open(file).TryFindSites(s_names, out RelocatedSites? found, out IReadOnlyList<PatchDiagnostic> diagnostics));
            Assert.Equal([(1, 6), (0, 6), (2, 7), (3, 5), (0, 6)], found.Sites.Select(static s => (s.Slot, s.Budget)));
            Assert.StartsWith("7 references", Assert.Single(diagnostics).Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_file_without_relocations_is_told()
    {
        byte[] file = LinkAll(64, [], IncludeFile.Compile(C, 64), Tools.Assemble(Definitions, 64));
        Refused(file, s_names, KernelDiagnosticCodes.RelocationsMissing);
    }

    [Fact]
    public void Names_that_the_file_has_not_are_told()
    {
        SiteNames names = s_names with { Functions = new Dictionary<string, int> { ["nothing"] = 3 } };
        ObjectFile file = Open(IncludeFile.Compile(C, 64));
        Assert.True(file.TryFindSites(names, out RelocatedSites? found, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal((KernelDiagnosticCodes.SymbolUnknown, DiagnosticSeverity.Warning), (diagnostics[0].Code, diagnostics[0].Severity));
        Assert.Equal(5, found.Sites.Count);
    }

    [Fact]
    public void A_name_of_two_local_symbols_is_told()
    {
        byte[] one = Tools.Assemble("native_enable: ret\n.globl f\nf: call native_enable\n", 64);
        byte[] other = Tools.Assemble("native_enable: ret\n", 64);
        Refused(LinkAll(64, ["-q", "-e", "f"], one, other), s_names, KernelDiagnosticCodes.SiteNameAmbiguous);
    }

    [Fact]
    public void Two_functions_of_one_slot_are_told()
    {
        SiteNames names = s_names with { Functions = new Dictionary<string, int> { ["native_enable"] = 3, ["one"] = 3 } };
        Refused(IncludeFile.Compile(C, 64), names, DiagnosticCodes.RecordSlot);
    }

    [Fact]
    public void A_slot_that_the_layout_has_not_is_an_error_of_the_caller()
    {
        SiteNames names = s_names with { Tables = new Dictionary<string, Range> { ["pv_ops"] = 0..5 } };
        Assert.Throws<ArgumentOutOfRangeException>(() => Open(IncludeFile.Compile(C, 64)).FindSites(names));
        names = s_names with { Functions = new Dictionary<string, int> { ["native_enable"] = 4 } };
        Assert.Throws<ArgumentOutOfRangeException>(() => Open(IncludeFile.Compile(C, 64)).FindSites(names));
    }

    private static ObjectFile Open(byte[] file)
    {
        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out PatchDiagnostic? error), error?.ToString());
        return opened;
    }

    private static void Refused(byte[] file, SiteNames names, string code)
    {
        Assert.False(Open(file).TryFindSites(names, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Contains(code, diagnostics.Select(static d => d.Code));
    }

    private static byte[] LinkAll(int bitness, string[] options, params byte[][] objects)
    {
        using var folder = new TestFolder();
        string result = folder.File("out");
        string[] files = [.. objects.Select((o, i) => folder.File($"{i}.o", o))];
        string[] entry = options.Contains("-e") ? [] : ["-e", "0"];
        Tools.Pipe(
            [], "ld", ["-m", bitness == 64 ? "elf_x86_64" : "elf_i386", "-Ttext=0x10000", .. entry, .. options, "-o", result, .. files]);
        return File.ReadAllBytes(result);
    }

    /// <summary>The places of the relocations that name pv_ops or native_enable in code, as readelf reads them.</summary>
    private static ulong[] PlacesOf(byte[] file, ObjectFile opened)
    {
        using var folder = new TestFolder();
        string text = System.Text.Encoding.ASCII.GetString(Tools.Pipe([], "readelf", "-rW", folder.File("file", file)));
        ulong start = opened.IsLinked ? 0 : opened.Code.Segments[0].Address.Value;
        return [.. text.Split('\n').Where(static l => l.Contains("R_", StringComparison.Ordinal)
            && (l.Contains("pv_ops", StringComparison.Ordinal) || l.Contains("native_enable", StringComparison.Ordinal)))
            .Select(l => start + Convert.ToUInt64(l.Split(' ')[0], 16))];
    }
}
