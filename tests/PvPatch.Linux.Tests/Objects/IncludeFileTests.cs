using System.Buffers.Binary;
using PvPatch.Linux.Objects;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;
using PvPatch.Records;

namespace PvPatch.Linux.Tests.Objects;

/// <summary>
/// What <c>pvpatch.inc</c> lays down: its code against instructions that GNU as encodes itself, its records against bytes written down by
/// hand from docs/site-sections.md.
/// </summary>
public sealed class IncludeFileTests
{
    private const ulong Text = 0x100000;
    private const ulong Sites = 0x200000;
    private const ulong Names = 0x300000;
    private const ulong Data = 0x400000;
    private const ulong Other = 0x500000;

    private const string Surroundings = "\nlabel: ret\nfunction: ret\n.data\npv_ops: .skip 256\nobject: .skip 8\n";

    [Theory]
    [InlineData(64, "pv_call pv_ops, 3", "call *pv_ops+24(%rip)")]
    [InlineData(32, "pv_call pv_ops, 3", "call *pv_ops+12")]
    [InlineData(64, "pv_jump pv_ops, 3", "jmp *pv_ops+24(%rip)")]
    [InlineData(32, "pv_jump pv_ops, 3", "jmp *pv_ops+12")]
    [InlineData(64, "pv_call pv_ops, 1, length=9", "call *pv_ops+8(%rip); nop; nop; nop")]
    [InlineData(64, "pv_call pv_ops, 0, save=PV_RAX|PV_R9|PV_RBP",
        "push %rax; push %rbp; push %r9; call *pv_ops(%rip); pop %r9; pop %rbp; pop %rax")]
    [InlineData(32, "pv_direct function, 3, save=PV_CALLER",
        "push %eax; push %ecx; push %edx; call function; pop %edx; pop %ecx; pop %eax")]
    [InlineData(64, "pv_direct function, 3", "call function")]
    [InlineData(64, "pv_branch key, label", ".byte 0x0f, 0x1f, 0x44, 0, 0")] // as makes a shorter one of nopl 0(%rax,%rax)
    [InlineData(32, "pv_branch key, label", ".byte 0x3e, 0x8d, 0x74, 0x26, 0")] // ds lea 0(%esi,%eiz), %esi
    [InlineData(64, "pv_branch key, label, likely=1", "{disp32} jmp label")]
    [InlineData(64, "pv_branch key, label, initial=1", "{disp32} jmp label")]
    [InlineData(64, "pv_branch key, label, likely=1, initial=1, size=2", "xchg %ax, %ax")]
    [InlineData(32, "pv_branch key, label, likely=1, size=2", "jmp label")]
    [InlineData(64, "pv_multi_branch mode, \"label, function\"", ".byte 0x0f, 0x1f, 0x44, 0, 0")]
    [InlineData(64, "pv_multi_branch mode, \"label, , function\", initial=2", "{disp32} jmp function")]
    [InlineData(32, "pv_multi_branch mode, \"label, , function\", initial=1", ".byte 0x3e, 0x8d, 0x74, 0x26, 0")] // falls through
    [InlineData(32, "pv_multi_branch mode, \"label, function\", initial=0, size=2", "jmp label")]
    [InlineData(64, "pv_multi_branch mode, \"label, function\", size=2", "xchg %ax, %ax")]
    [InlineData(64, "pv_static_call key, function", "call function")]
    [InlineData(64, "pv_static_call key", ".byte 0x0f, 0x1f, 0x44, 0, 0")]
    [InlineData(64, "pv_static_jump key, function", "{disp32} jmp function")]
    [InlineData(32, "pv_static_jump key", "ret; int3; int3; int3; int3")]
    [InlineData(64, "pv_static_jcc nz, key, function", "{disp32} jnz function")]
    [InlineData(32, "pv_static_jcc le, key, function", "{disp32} jle function")]
    [InlineData(64, "pv_region a; cli; pv_variant b; nop; cli; cli; pv_variant c; nop; pv_end_region", "cli; nop; nop")]
    [InlineData(64, "pv_region; cli; sti; pv_replacement 5; nop; pv_end_region", "cli; sti")]
    public void Code_is_what_the_assembler_makes_of_the_instruction(int bitness, string macro, string plain)
    {
        Assert.Equal(TextOf(plain, bitness), TextOf(macro, bitness));
    }

    [Theory]
    [InlineData(64, "rax rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15")]
    [InlineData(32, "eax ecx edx ebx ebp esi edi")]
    public void Every_register_is_saved_and_taken_back_in_the_reverse_order(int bitness, string registers)
    {
        string[] names = registers.Split(' ');
        string set = string.Join('|', names.Reverse().Select(static n => $"PV_{n.ToUpperInvariant()}"));
        string plain = string.Concat(names.Select(static n => $"push %{n};")) + "call function;"
            + string.Concat(names.Reverse().Select(static n => $"pop %{n};"));
        Assert.Equal(TextOf(plain, bitness), TextOf($"pv_direct function, 0, save={set}", bitness));
    }

    [Fact]
    public void Nops_of_five_bytes_are_one_instruction()
    {
        foreach (int bitness in (int[])[32, 64])
        {
            var decoder = Iced.Intel.Decoder.Create(bitness, TextOf("pv_branch key, label", bitness));
            Iced.Intel.Instruction nop = decoder.Decode();
            Assert.Equal(5, nop.Length);
            Assert.Equal(Iced.Intel.FlowControl.Next, nop.FlowControl);
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Intel_syntax_makes_no_difference(int bitness)
    {
        const string Source = """
            pv_call pv_ops, 3, save=PV_CALLER, length=40
            pv_jump pv_ops, 4
            pv_direct function, 5
            pv_branch key, label, size=2
            pv_branch key, label, likely=1
            pv_multi_branch mode, "label, , function", initial=2
            pv_multi_branch mode, "label, , function", size=2
            pv_static_call key, function
            pv_static_jump key, function
            pv_static_jcc e, key, function
            pv_region a
            nop
            pv_variant b
            cli
            sti
            pv_end_region
            """;
        byte[] plain = Linked(Source, bitness);
        byte[] intel = Linked($".intel_syntax noprefix\n{Source}", bitness);
        foreach (string section in (string[])[".text", SiteRecords.SectionName, SiteRecords.NamesSectionName, "pvpatch_code"])
        {
            Assert.Equal(Convert.ToHexString(Dump(plain, section)), Convert.ToHexString(Dump(intel, section)));
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Records_are_the_bytes_that_the_page_says(int bitness)
    {
        int word = bitness / 8;
        byte[] file = Linked(
            "pv_call pv_ops, 3, PV_RAX|PV_FLAGS, length=7, first=2, nostack=1\n" // 7 bytes
            + "pv_branch key, label, likely=1, initial=1, size=2, object=object\n" // 2
            + "pv_static_jcc e, key, function\n" // 6
            + "pv_region one\nnop\npv_variant two\nnop\nnop\nnop\npv_end_region\n" // 3
            + "pv_region\nnop\npv_replacement 0x110, not=1\nnop\npv_end_region\n" // 1
            + "pv_direct function, 9\n", // 5
            bitness);

        // label and function follow the 24 bytes of the sites; the linker keeps one of the two names "key".
        const ulong Label = Text + 24, Function = Label + 1;
        ulong key = NameAt("key"), ops = NameAt("pv_ops"), one = NameAt("one"), two = NameAt("two"), function = NameAt("function");
        byte[] expected =
        [
            .. Record(0, 1, 0, 1, Text, 7, 5, ops, Data + (ulong)(3 * word), 0, 0x10001, 0),
            .. Record(1, 2, 0, 3, Text + 7, 2, 0, key, Label, 0, 0, Data + 256),
            .. Record(2, 3, 2, 0, Text + 9, 6, 4, key, Function, 0, 0, 0),
            .. Record(3, 4, 0, 1, Text + 15, 3, 0, one, Text + 15, 1, 0, 0),
            .. Record(4, 4, 0, 0, Text + 15, 3, 0, two, Other, 3, 0, 0),
            .. Record(5, 5, 0, 1, Text + 18, 1, 0x110, 0, Other + 3, 1, 0, 0),
            .. Record(6, 1, 2, 0, Text + 19, 5, 9, function, Function, 0, bitness == 64 ? 0x30fc7u : 0x30007u, 0),
        ];
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(Dump(file, SiteRecords.SectionName)));

        ulong NameAt(string name)
        {
            int at = Dump(file, SiteRecords.NamesSectionName).AsSpan().IndexOf(System.Text.Encoding.ASCII.GetBytes(name + "\0"));
            Assert.True(at >= 0, name);
            return Names + (ulong)at;
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void A_multiway_branch_has_a_record_for_each_way(int bitness)
    {
        byte[] file = Linked(
            "pv_multi_branch m, \"label, , function\", initial=2, object=object\n" // 5 bytes
            + "pv_multi_branch m, \"function\", size=2\n", // 2
            bitness);
        const ulong Label = Text + 7, Function = Label + 1;
        byte[] expected =
        [
            .. Record(0, 6, 0, 0, Text, 5, 0, Names, Label, 0, 3, Data + 256),
            .. Record(1, 6, 0, 0, Text, 5, 1, Names, 0, 0, 3, Data + 256),
            .. Record(2, 6, 0, 1, Text, 5, 2, Names, Function, 0, 3, Data + 256),
            .. Record(3, 6, 0, 0, Text + 5, 2, 0, Names, Function, 0, 1, 0),
        ];
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(Dump(file, SiteRecords.SectionName)));

        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out _));
        SiteRecords read = opened.ReadRecords();
        Assert.Equal((4, 2), (read.Count, read.MultiBranches.Count));
        Assert.Equal(
            [("m", 5, 2, new VirtualAddress(Data + 256)), ("m", 2, (int?)null, (VirtualAddress?)null)],
            read.MultiBranches.Select(static r => (r.Branch!, r.Length, r.InitialWay, r.KeyAddress)));
        Assert.Equal([Label, 0, Function], read.MultiBranches[0].Labels.Select(static l => l?.Value ?? 0));
        Assert.Equal([Function], read.MultiBranches[1].Labels.Select(static l => l?.Value ?? 0));
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void What_macros_were_told_is_read(int bitness)
    {
        const string Source = """
            pv_call pv_ops, 3, save=PV_CALLER
            pv_jump pv_ops, 4, first=10
            pv_direct function, 5
            pv_branch key, label
            pv_branch key, label, likely=1, size=2, object=object
            pv_static_call call, function
            pv_static_jump call
            pv_static_jcc ne, call, function
            pv_region native
            nop
            pv_variant xen
            cli
            sti
            pv_end_region
            pv_region
            nop
            pv_replacement 0x75
            cli
            pv_replacement 0x114, not=1
            sti
            sti
            pv_end_region
            """;
        Assert.True(ObjectFile.TryOpen(Linked(Source, bitness), out ObjectFile? file, out _));
        SiteRecords read = file.ReadRecords();
        int word = bitness / 8;
        RegisterSet all = RegisterSet.Flags | RegisterSet.Vector;
        RegisterSet caller = (bitness == 64 ? CallConvention.SysV : CallConvention.I386RegParm).DestroyedBy(bitness);

        Assert.Equal([3, 14, 5], read.Sites.Select(static s => s.Slot));
        Assert.Equal([bitness == 64 ? 32 : 12, 6, 5], read.Sites.Select(static s => s.Budget));
        Assert.Equal([all, caller | all, caller | all], read.Sites.Select(static s => s.Clobbers));
        Assert.Equal(
            [Data + (ulong)(3 * word), Data + (ulong)(4 * word)],
            read.SlotAddresses(15).Where(static a => !a.IsZero).Select(static a => a.Value));
        Assert.Equal(5, read.SlotFunctions(15).Select(static (a, i) => (a, i)).Single(static p => !p.a.IsZero).i);

        Assert.Equal(
            [(5, false, null), (2, true, new VirtualAddress(Data + 256))],
            read.StaticKeys.Select(static r => (r.Length, r.IsLikely, r.KeyAddress)));
        Assert.All(read.StaticKeys, r => Assert.Equal((read.StaticKeys[0].Target, "key", false), (r.Target, r.Key, r.InitialValue)));
        Assert.Equal([(false, null), (true, null), (true, 5)], read.StaticCalls.Select(static r => (r.IsTailCall, r.Condition)));
        Assert.Equal([true, false, true], read.StaticCalls.Select(static r => r.Target is not null));
        Assert.Equal([("native", 1, 2), ("xen", 2, 2)], read.Variants.Select(static r => (r.Backend!, r.CodeLength, r.Length)));
        Assert.Equal(
            [(0x75, false, 1, 2), (0x114, true, 2, 2)],
            read.Alternatives.Select(static r => (r.Feature, r.IsForAbsence, r.CodeLength, r.Length)));
        Assert.True(file.Code.TryGetBytes(read.Alternatives[1].Code, 2, out Span<byte> sti));
        Assert.Equal([0xfb, 0xfb], sti.ToArray());
    }

    [Theory]
    [InlineData("pv_branch key, 1f, size=2\n.skip 127\n1:", true)]
    [InlineData("pv_branch key, 1f, size=2\n.skip 128\n1:", false)]
    [InlineData("1: .skip 126\npv_branch key, 1b, size=2", true)]
    [InlineData("1: .skip 127\npv_branch key, 1b, size=2", false)]
    [InlineData("pv_branch key, 1f, size=2, likely=1\n.skip 128\n1:", false)]
    [InlineData("pv_branch key, 1f, size=3\n1:", false)]
    [InlineData("pv_multi_branch key, \"1f, 2f\", size=2\n1: .skip 127\n2:", true)]
    [InlineData("pv_multi_branch key, \"1f, 2f\", size=2\n1: .skip 128\n2:", false)]
    [InlineData("pv_multi_branch key, \"1f, 1f\", initial=2\n1:", false)]
    [InlineData("pv_multi_branch key, \"1f, 1f\", size=6\n1:", false)]
    [InlineData("pv_multi_branch key\n1:", false)]
    [InlineData("pv_call pv_ops, 1, length=6", true)]
    [InlineData("pv_call pv_ops, 1, length=5", false)]
    [InlineData("pv_call pv_ops", false)]
    [InlineData("pv_static_jcc nothing, key, f", false)]
    public void What_cannot_be_is_refused_by_the_assembler(string source, bool assembles)
    {
        if (assembles)
        {
            IncludeFile.Assemble(source, 64);
        }
        else
        {
            Assert.Contains("Error", IncludeFile.Refusal(source, 64), StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void C_with_inline_assembly_records_its_sites(int bitness)
    {
        const string Source = """
            extern void *pv_ops[8];
            void cli(void);
            static inline int traced(void)
            {
                asm goto("pv_branch tracing, %l[on]" : : : : on);
                return 0;
            on: return 1;
            }
            int f(int x)
            {
                asm volatile("pv_call pv_ops, 3, save=PV_CALLER" : : : "memory", "cc");
                if (traced())
                    x *= 7;
                asm volatile("pv_direct cli, 2, save=PV_CALLER" : : : "memory", "cc");
                return x;
            }
            int g(void) { return traced(); }
            """;
        byte[] file = IncludeFile.Compile(Source, bitness);
        var options = new ObjectOptions
        {
            Symbols = new Dictionary<string, VirtualAddress> { ["pv_ops"] = new(0x500000), ["cli"] = new(0x600000) },
        };
        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out PatchDiagnostic? error, options), error?.ToString());
        SiteRecords read = opened.ReadRecords();
        Assert.Equal([3, 2], read.Sites.Select(static s => s.Slot));
        Assert.Equal(["tracing", "tracing"], read.StaticKeys.Select(static k => k.Key));
        Assert.Equal(new VirtualAddress(0x600000), read.SlotFunctions(3)[2]);
    }

    [Fact]
    public void A_function_that_the_linker_drops_takes_its_records_along()
    {
        // Two files with one inline function, as C++ makes them: code and records in a group of which the linker keeps one.
        const string Source = """
            .section .text.f,"axG",@progbits,f,comdat
            .weak f
            f: pv_branch tracing, 1f
            1: pv_region native
            nop
            pv_variant xen
            cli
            pv_end_region
            ret
            """;
        byte[] file = IncludeFile.Assemble(Source, 64);
        using var folder = new TestFolder();
        string result = folder.File("out");
        Tools.Pipe([], "ld", ["-e", "f", "-o", result, folder.File("1.o", file), folder.File("2.o", file)]);
        SiteRecords read = ObjectFile.Open(result).ReadRecords();
        Assert.Equal((1, 2), (read.StaticKeys.Count, read.Variants.Count));
    }

    private static byte[] TextOf(string source, int bitness) =>
        Dump(Linked(source.Replace(';', '\n'), bitness), ".text");

    private static byte[] Linked(string source, int bitness) => Tools.Link(
        IncludeFile.Assemble(source + Surroundings, bitness), bitness, [], (".text", Text), (SiteRecords.SectionName, Sites),
        (SiteRecords.NamesSectionName, Names), (".data", Data), ("pvpatch_code", Other));

    /// <summary>A section as readelf prints it.</summary>
    private static byte[] Dump(byte[] file, string section)
    {
        using var folder = new TestFolder();
        string text = System.Text.Encoding.ASCII.GetString(Tools.Pipe([], "readelf", "-x", section, folder.File("linked", file)));
        var bytes = new List<byte>();
        foreach (string line in text.Split('\n').Where(static l => l.StartsWith("  0x", StringComparison.Ordinal)))
        {
            bytes.AddRange(Convert.FromHexString(line[13..48].Replace(" ", "", StringComparison.Ordinal)));
        }

        return [.. bytes];
    }

    private static byte[] Record(
        int index, byte mechanism, byte form, byte flags, ulong site, int length, int number, ulong name, ulong target, int size,
        uint value, ulong key)
    {
        byte[] record = [1, mechanism, form, flags, .. new byte[28]];
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(8), (ushort)length);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(10), (ushort)number);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(20), (ushort)size);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(24), value);
        foreach ((int field, ulong address) in ((int, ulong)[])[(4, site), (12, name), (16, target), (28, key)])
        {
            long distance = address == 0 ? 0 : (long)address - (long)(Sites + (ulong)(index * 32) + (ulong)field);
            BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(field), (int)distance);
        }

        return record;
    }
}
