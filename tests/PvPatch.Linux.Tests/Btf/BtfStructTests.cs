using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using Member = PvPatch.Linux.Tests.Support.TestBtf.Member;

namespace PvPatch.Linux.Tests.Btf;

public sealed class BtfStructTests
{
    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Nested_structs_are_laid_flat_with_callee_save_slots_marked(int bitness)
    {
        int word = bitness / 8;
        int bits = bitness;
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        int calleeSave = btf.Struct("paravirt_callee_save", word, new Member("func", pointer, 0));
        int lazy = btf.Struct("pv_lazy_ops", 2 * word, new Member("enter", pointer, 0), new Member("leave", pointer, bits));
        int cpu = btf.Struct("pv_cpu_ops", word, new Member("io_delay", btf.Const(btf.Typedef("delay_t", pointer)), 0));
        int irq = btf.Struct("pv_irq_ops", 2 * word, new Member("save_fl", calleeSave, 0), new Member("halt", pointer, bits));
        int mmu = btf.Struct("pv_mmu_ops", 2 * word, new Member("lazy_mode", btf.Volatile(lazy), 0));
        btf.Struct(
            "paravirt_patch_template", 5 * word, new Member("cpu", cpu, 0), new Member("irq", irq, bits), new Member("mmu", mmu, 3 * bits));

        BtfStruct layout = Read(btf, BtfStructLayout.PatchTemplate, bitness);
        Assert.Equal(5 * word, layout.Size);
        BtfMember[] expected =
        [
            new("cpu.io_delay", 0, word, true, "pv_cpu_ops"),
            new("irq.save_fl", word, word, true, "paravirt_callee_save"),
            new("irq.halt", 2 * word, word, true, "pv_irq_ops"),
            new("mmu.lazy_mode.enter", 3 * word, word, true, "pv_lazy_ops"),
            new("mmu.lazy_mode.leave", 4 * word, word, true, "pv_lazy_ops"),
        ];
        Assert.Equal(expected, layout.Members);
        Assert.Equal([false, true, false, false, false], layout.Members.Select(m => m.IsCalleeSave));
    }

    [Fact]
    public void Nameless_members_arrays_and_unions_are_laid_flat()
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        int number = btf.Int("int", 4);
        int pair = btf.Array(pointer, number, 2);
        int inner = btf.Struct("", 16, new Member("both", pair, 0));
        int choice = btf.Union("", 8, new Member("hook", pointer, 0), new Member("cookie", number, 0));
        btf.Struct("ops", 40, new Member("", inner, 0), new Member("", choice, 128), new Member("rest", btf.Array(inner, number, 1), 192),
            new Member("tail", btf.Array(pointer, number, 0), 320));

        Assert.Equal(
            ["both[0]@0", "both[1]@8", "hook@16", "cookie@16", "rest[0].both[0]@24", "rest[0].both[1]@32"],
            Read(btf, "ops").Members.Select(m => $"{m.Path}@{m.Offset}"));
    }

    [Fact]
    public void Every_kind_of_type_is_stepped_over()
    {
        // Kind, number of parts, bytes that follow: the table of the format's documentation.
        (int Kind, int Count, int Trailing)[] kinds =
        [
            (1, 0, 4), (2, 0, 0), (3, 0, 12), (4, 2, 24), (5, 1, 12), (6, 3, 24), (7, 0, 0), (8, 0, 0), (9, 0, 0), (10, 0, 0),
            (11, 0, 0), (12, 0, 0), (13, 2, 16), (14, 0, 4), (15, 2, 24), (16, 0, 0), (17, 0, 4), (18, 0, 0), (19, 2, 24),
        ];
        var btf = new TestBtf();
        foreach ((int kind, int count, int trailing) in kinds)
        {
            btf.Other(kind, count, $"kind{kind}", 0, new byte[trailing]);
        }

        int pointer = btf.Pointer(0);
        btf.Struct("last", 8, new Member("op", pointer, 0));
        Assert.True(BtfFile.TryRead(btf.Build(), out BtfFile? file, out _));
        Assert.Equal(kinds.Length + 3, file.TypeCount);
        Assert.Equal("op", Assert.Single(Read(btf, "last").Members).Path);
    }

    [Fact]
    public void A_name_is_compared_as_a_whole()
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        btf.Struct("pv_ops_lock", 8, new Member("a", pointer, 0));
        btf.Struct("pv_ops", 8, new Member("b", pointer, 0));
        Assert.Equal("b", Read(btf, "pv_ops").Members[0].Path);
        Assert.False(BtfStructLayout.TryRead(btf.Build(), "ops", out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.BtfStructMissing, error.Code);
    }

    [Fact]
    public void What_the_compiler_writes_is_read()
    {
        const string Source = """
            struct paravirt_callee_save { void *func; };
            struct pv_lazy_ops { void (*enter)(void); void (*leave)(void); };
            typedef struct pv_lazy_ops lazy_t;
            struct pv_mmu_ops { void (*flush)(unsigned long); struct paravirt_callee_save pte_val; const lazy_t lazy_mode; };
            struct paravirt_patch_template { struct { void *io_delay; } cpu; struct pv_mmu_ops mmu; void *lock[2]; };
            struct paravirt_patch_template pv_ops;
            """;
        using var folder = new TestFolder();
        string path = folder.File("ops.o");
        Tools.Pipe(System.Text.Encoding.ASCII.GetBytes(Source), "gcc", "-m64", "-gbtf", "-c", "-x", "c", "-o", path, "-");
        ElfImage image = ElfImage.Read(File.ReadAllBytes(path));
        Assert.True(image.TryGetSection(".BTF", out ElfSection? section));
        Assert.True(BtfStructLayout.TryRead(
            image.GetBytes(section), BtfStructLayout.PatchTemplate, out BtfStruct? layout, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(
            ["cpu.io_delay@0", "mmu.flush@8", "mmu.pte_val@16*", "mmu.lazy_mode.enter@24", "mmu.lazy_mode.leave@32", "lock[0]@40",
                "lock[1]@48"],
            layout.Members.Select(m => $"{m.Path}@{m.Offset}{(m.IsCalleeSave ? "*" : "")}"));
        Assert.Equal(56, layout.Size);
    }

    private static BtfStruct Read(TestBtf btf, string name, int bitness = 64)
    {
        Assert.True(
            BtfStructLayout.TryRead(btf.Build(), name, out BtfStruct? layout, out PatchDiagnostic? error, bitness), error?.ToString());
        return layout;
    }
}
