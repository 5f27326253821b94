using PvPatch.Linux.BootText;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Memory;
using PvPatch.Machine;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>The state read from the data of a kernel in memory, and that memory compared with what is predicted from it.</summary>
public sealed class BootStateReaderTests
{
    private const ulong Tables = 0xffffffff83300000;

    // In the patched form the data is that of a kernel that is up: the words that the first one has as the compiler left them.
    private const string Code = """
        .text
        _text: push %rbp
        label "xchg %ax, %ax", "{disp8} jmp near", near, key, 0
        near: scall "call __SCT__one", "call second", __SCK__one, 0
        trampoline one, "{disp32} jmp first", "{disp32} jmp second"
        first: ret
        second: ret
        site "lock incl (%rdi)", "ds incl (%rdi)", .smp_locks
        movabs $0x0123456789abcdef, %rax
        top_site: movabs $0x0123456789abcdef, %rax
        gone_site: movabs $0x0123456789abcdef, %rax
        gone_site2: _etext:
        .data
        .balign 16
        key: .long PATCHED
        .balign 8
        .if PATCHED
        __SCK__one: .quad second, 0
        .else
        __SCK__one: .quad first, 0
        .endif
        x86_return_thunk: .quad first
        uniproc_patched: .byte PATCHED
        .balign 8
        p6_nops: .quad 0
        k8_nops: .quad 0
        ideal_nops: .if PATCHED
        .quad k8_nops
        .else
        .quad p6_nops
        .endif
        top: .quad 0x7ffffffff000 * PATCHED
        boot_cpu_data: .quad 1, 2
        .long 0x11, 0x22, 0x33, 0x44
        .long 0, 0, 0, 0, 1 << 16, 0, 0, 0
        .zero 48
        .section runtime_ptr_top, "a"
        .long top_site - 8 - .
        .section runtime_ptr_gone, "a"
        .long gone_site - 8 - .
        .long gone_site2 - 8 - .

        """;

    private static readonly (string Section, ulong Address)[] s_places =
    [
        ("__jump_table", Tables), (".static_call_sites", Tables + 0x1000), (".smp_locks", Tables + 0x2000),
        ("runtime_ptr_top", Tables + 0x3000), ("runtime_ptr_gone", Tables + 0x4000),
    ];

    [Theory]
    [InlineData(0)]
    [InlineData(0x12000000)]
    public void Every_fact_is_read_and_pointers_are_link_addresses(long slide)
    {
        LinkedText linked = LinkedText.Of(Code, TextRules.Linux510, s_places);

        BootState state = Read(linked, Running(linked, slide), slide);

        Assert.Equal(slide, state.Slide);
        Assert.Equal(1, state.Keys[linked.Symbol("key")]);
        Assert.Equal(linked.Symbol("second"), state.StaticCalls[linked.Symbol("__SCK__one")]);
        Assert.Equal(linked.Symbol("first"), state.ReturnThunk);
        Assert.True(state.IsUniprocessor);
        Assert.Same(NopStyle.K8, state.Nops);
        Assert.Equal(0x7ffffffff000UL, state.RuntimeConstants["top"]);
        Assert.Equal(linked.Kernel.Image.Layout.Count, state.Slots.Count);
        Assert.Equal(linked.Symbol("other"), state.Slots[0]);
        Assert.Equal(VirtualAddress.Zero, state.Slots[19]);
        Assert.True(state.Features.Has(XenIretPatch.XenPv));
        Assert.True(state.Features.Has(0));
        Assert.False(state.Features.Has(1));
        Assert.Null(state.Features.Has(LinkedText.FeatureWordCount * 32));
        Assert.Null(state.Features.Has(-1));
    }

    [Fact]
    public void A_constant_without_a_variable_is_read_where_all_its_operands_agree_on_a_kernel_pointer()
    {
        LinkedText linked = LinkedText.Of(Code, TextRules.Linux612, s_places);
        Dictionary<string, byte[]> memory = Running(linked, 0);
        int first = (int)(linked.Symbol("gone_site") - linked.Symbol("_text")) - 8;
        int second = (int)(linked.Symbol("gone_site2") - linked.Symbol("_text")) - 8;
        byte[] pointer = BitConverter.GetBytes(0xffff888012345678);
        Assert.DoesNotContain("gone", Read(linked, memory, 0).RuntimeConstants.Keys); // no pointer

        pointer.CopyTo(memory[".text"], first);
        Assert.DoesNotContain("gone", Read(linked, memory, 0).RuntimeConstants.Keys);

        pointer.CopyTo(memory[".text"], second);
        Assert.Equal(0xffff888012345678, Read(linked, memory, 0).RuntimeConstants["gone"]);
    }

    [Fact]
    public void What_the_memory_lacks_is_unknown()
    {
        LinkedText linked = LinkedText.Of(Code, TextRules.Linux510, s_places);
        Dictionary<string, byte[]> memory = Running(linked, 0);
        memory.Remove(".data");

        BootState state = Read(linked, memory, 0);

        Assert.Empty(state.Keys);
        Assert.Empty(state.StaticCalls);
        Assert.Null(state.ReturnThunk);
        Assert.Null(state.IsUniprocessor);
        Assert.Null(state.Nops);
        Assert.All(state.Slots, static s => Assert.Null(s));
        Assert.Null(state.Features.Has(0));
    }

    [Fact]
    public void Without_a_slide_there_is_no_state()
    {
        LinkedText linked = LinkedText.Of(Code, TextRules.Linux510, s_places);

        KernelMemory memory = Memory(Running(linked, 0), linked, 0, null);

        Assert.False(BootStateReader.TryRead(linked.Kernel, memory, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.TextStateUnreadable, error.Code);
    }

    [Fact]
    public void The_comparison_counts_every_byte_to_its_last_writer_and_names_each_that_is_wrong()
    {
        LinkedText linked = LinkedText.Of(Code, TextRules.Linux61, s_places);
        Dictionary<string, byte[]> memory = Running(linked, 0);
        BootState state = Read(linked, memory, 0);
        TextImage text = linked.Predict(state, TextMechanism.JumpLabel, TextMechanism.StaticCall, TextMechanism.SmpLock,
            TextMechanism.StaticTrampoline);

        TextComparison good = TextComparison.Compare(text, Memory(memory, linked, 0, 0));

        // eb 06 for 66 90; the distances of the call and the trampoline; 3e for f0.
        Assert.Equal(0, good.Unexplained);
        Assert.Equal((good.Changed, good.Bytes), (good.AsBooted, text.Sections.Sum(static s => (long)s.Length)));
        Assert.Equal((2L, 1L), (good.Of(TextMechanism.JumpLabel).Changed, good.Of(TextMechanism.SmpLock).Changed));
        Assert.True(good.Of(TextMechanism.StaticCall).Changed > 0);

        int at = (int)(linked.Symbol("first") - linked.Symbol("_text"));
        memory[".text"][at] ^= 1;
        memory[".text"][1] ^= 1; // the jump label
        TextComparison bad = TextComparison.Compare(text, Memory(memory, linked, 0, 0));
        Assert.Equal(2, bad.Unexplained);
        Assert.Equal([TextMechanism.JumpLabel, TextMechanism.None], bad.Differences.Select(static d => d.Owner));
        Assert.Equal(linked.Symbol("_text") + 1, bad.Differences[0].Address);
    }

    private static BootState Read(LinkedText linked, Dictionary<string, byte[]> memory, long slide)
    {
        Assert.True(
            BootStateReader.TryRead(linked.Kernel, Memory(memory, linked, slide, slide), out BootState? state, out PatchDiagnostic? error),
            error?.ToString());
        return state;
    }

    /// <summary>The sections of the patched form by name, linked to where the kernel runs.</summary>
    private static Dictionary<string, byte[]> Running(LinkedText linked, long slide)
    {
        ElfImage running = slide == 0 ? linked.Patched : LinkedText.Running(Code, slide, s_places);
        return running.Sections.Where(static s => s.IsAllocated && s.HasFileContent)
            .ToDictionary(static s => s.Name, s => running.GetBytes(s).ToArray());
    }

    private static KernelMemory Memory(Dictionary<string, byte[]> sections, LinkedText linked, long place, long? slide)
    {
        var segments = new List<MemorySegment>();
        var bytes = new List<byte>();
        foreach (ElfSection section in linked.Original.Sections.Where(s => s.IsAllocated && sections.ContainsKey(s.Name)))
        {
            segments.Add(new MemorySegment(section.Address.Value + (ulong)place, bytes.Count, sections[section.Name].Length));
            bytes.AddRange(sections[section.Name]);
        }

        var source = new BytesMemorySource([.. bytes]);
        Assert.True(MemoryFile.TryOpen(source, "memory", 0x1000, out MemoryFile? file, out _));
        return new KernelMemory(file, MemorySpace.Create(source, segments), (ulong)place, 64) { Slide = slide };
    }
}
