using PvPatch.Linux.BootText;
using PvPatch.Machine;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Each mechanism against the bytes that the assembler makes of what a booted kernel holds.</summary>
public sealed class SimpleMechanismTests
{
    private const ulong Tables = 0xffffffff83300000;

    private const string Keys = """

        .data
        .balign 8
        off: .long 0, 0
        .quad 0
        on: .long 1, 0
        .quad 0
        twice: .long 2, 0
        .quad 0
        switching: .long -1, 0
        .quad 0

        """;

    private const string Labels = """
        .text
        _text: push %rbp
        label "xchg %ax, %ax", "xchg %ax, %ax", near, off, 0
        label "xchg %ax, %ax", "{disp8} jmp near", near, on, 0
        label "{disp8} jmp near", "xchg %ax, %ax", near, twice, 1
        label "xchg %ax, %ax", "{disp8} jmp near", near, off, 1
        label "{disp8} nopl 0(%rax,%rax,1)", "{disp32} jmp far", far, on, 0
        label "{disp8} nopl 0(%rax,%rax,1)", "{disp32} jmp far", far, switching, 0
        label "{disp32} jmp far", "{disp8} nopl 0(%rax,%rax,1)", far, off, 0
        label "{disp32} jmp far", "{disp32} jmp far", far, off, 1
        near: ret
        .skip 300
        far: label "xchg %ax, %ax", "{disp8} jmp far", far, on, 2
        """;

    private const string OldLabels = """
        .text
        _text: push %rbp
        label "{disp8} nopl 0(%rax,%rax,1)", ".byte 0x66, 0x66, 0x66; xchg %ax, %ax", far, off, 0
        label "{disp32} jmp far", ".byte 0x66, 0x66, 0x66; xchg %ax, %ax", far, on, 1
        label "{disp8} nopl 0(%rax,%rax,1)", "{disp32} jmp far", far, on, 0
        far: site "call __fentry__", ".byte 0x66, 0x66, 0x66; xchg %ax, %ax", .none
        .pushsection __mcount_loc, "a"
        .quad far
        .popsection
        ret
        __fentry__: ret
        """;

    private const string Calls = """
        .text
        _text: push %rbp
        scall "call __SCT__one", "call first", __SCK__one, 0
        scall "call __SCT__one", "call first", __SCK__one, 2
        scall "{disp32} jmp __SCT__one", "{disp32} jmp first", __SCK__one, 1
        scall "call __SCT__two", "call second", __SCK__two, 0
        scall "{disp32} jmp __SCT__two", "{disp32} jmp second", __SCK__two, 1
        scall "call __SCT__none", ".nops 5", __SCK__none, 0
        scall "{disp32} jmp __SCT__none", "return0", __SCK__none, 1
        scall "call __SCT__zero", "cs; cs; cs xor %eax, %eax", __SCK__zero, 0
        scall "{disp32} jmp __SCT__zero", "{disp32} jmp __static_call_return0", __SCK__zero, 1
        scall "call __SCT__warn", "ud1 (%edx), %rdi", __SCK__warn, 0
        first: nop
        second: nop
        __static_call_return0: xor %eax, %eax
        ret
        __WARN_trap: ret
        trampoline one, "{disp32} jmp first", "{disp32} jmp first"
        trampoline two, "{disp32} jmp first", "{disp32} jmp second"
        trampoline none, "{disp32} jmp first", "return0"
        trampoline zero, "return0", "{disp32} jmp __static_call_return0"
        trampoline warn, "{disp32} jmp __WARN_trap", "{disp32} jmp __WARN_trap"
        trampoline siteless, "return0", "{disp32} jmp second"

        .data
        .balign 8
        __SCK__one: .quad first, 0
        __SCK__two: .quad first, 0
        __SCK__none: .quad first, 0
        __SCK__zero: .quad 0, 0
        __SCK__warn: .quad __WARN_trap, 0
        __SCK__siteless: .quad 0, 0

        """;

    private const string Others = """
        .text
        _text: push %rbp
        site "endbr64", "PATCHED_ENDBR", .ibt_endbr_seal
        endbr64
        site "lock incl (%rdi)", "ds incl (%rdi)", .smp_locks
        lock incl (%rdi)
        site "incl (%rdi)", "incl (%rdi)", .smp_locks
        .pushsection .smp_locks, "a"
        .long 0
        .popsection
        traced: call __fentry__
        early_xen_iret_patch: .byte 0xe9
        .if PATCHED
        .long xen_iret - . - 4
        .else
        .long 0
        .endif
        ret
        xen_iret: ret
        __fentry__: ret
        movabs $0x0123456789abcdef, %rax
        _etext:
        .section .init.text, "ax"
        site "lock incl (%rdi)", "lock incl (%rdi)", .smp_locks
        .section runtime_ptr_top, "a"
        .long _etext - 8 - .
        .section runtime_shift_bits, "a"
        .long _etext - 10 - .
        """;

    [Fact]
    public void Jump_labels_follow_their_keys()
    {
        LinkedText linked = LinkedText.Of(Labels + Keys, TextRules.Linux61, ("__jump_table", Tables));
        var state = new BootState { Keys = KeysOf(linked) };

        linked.Check(linked.Predict(state, TextMechanism.JumpLabel));
        Assert.Equal(9, new JumpLabels().Count(linked.Kernel));
    }

    [Fact]
    public void To_5_12_nops_of_labels_and_of_ftrace_are_those_of_the_processor()
    {
        LinkedText linked = LinkedText.Of(
            OldLabels + Keys, TextRules.Linux510, ("__jump_table", Tables), ("__mcount_loc", Tables + 0x1000), (".none", Tables + 0x2000));
        var state = new BootState { Keys = KeysOf(linked), Nops = NopStyle.K8 };

        linked.Check(linked.Predict(state, TextMechanism.JumpLabel, TextMechanism.Ftrace));
    }

    [Fact]
    public void Static_calls_and_trampolines_follow_their_keys()
    {
        LinkedText linked = LinkedText.Of(Calls, TextRules.Linux72, (".static_call_sites", Tables));
        var state = new BootState { StaticCalls = CallsOf(linked) };

        linked.Check(linked.Predict(state, TextMechanism.StaticCall, TextMechanism.StaticTrampoline));
        Assert.Equal(10, new StaticCalls().Count(linked.Kernel));
        Assert.Equal(6, new StaticTrampolines().Count(linked.Kernel));
    }

    [Theory]
    [InlineData(true, 0, "e9")]
    [InlineData(true, 0x20, "c3")]
    [InlineData(false, 0, "c3")]
    public void A_tail_call_without_a_function_returns_as_the_kernel_does_where_sites_are_written_twice(
        bool thunks, int offset, string opcode)
    {
        string code = $$"""
            .text
            _text: .balign 64
            .skip {{offset}}
            tail: scall "{disp32} jmp __SCT__none", "nop", __SCK__none, 1
            trampoline none, "return0", "return0"
            static_call_force_reinit: ret
            its_return_thunk: ret
            .data
            .balign 8
            __SCK__none: .quad 0, 0

            """;
        LinkedText linked = LinkedText.Of(code, TextRules.Linux612, (".static_call_sites", Tables));
        var state = new BootState
        {
            StaticCalls = new Dictionary<VirtualAddress, VirtualAddress> { [linked.Symbol("__SCK__none")] = default },
            Features = FeaturesWith(thunks ? [ReturnForm.Rethunk] : []),
            ReturnThunk = linked.Symbol("its_return_thunk"),
        };

        TextImage text = linked.Predict(state, TextMechanism.StaticCall);

        Assert.True(text.TryGet(linked.Symbol("tail"), 5, out ReadOnlySpan<byte> bytes));
        Assert.Equal(opcode, Convert.ToHexStringLower(bytes[..1]));
        if (opcode == "e9")
        {
            Assert.Equal(linked.Symbol("its_return_thunk"), BranchBytes.Target(linked.Symbol("tail"), bytes));
        }
    }

    [Fact]
    public void Seals_locks_and_the_jump_of_xen_are_written()
    {
        LinkedText linked = LinkedText.Of(
            Others.Replace("PATCHED_ENDBR", "nopw (%rax)", StringComparison.Ordinal), TextRules.Linux612, (".ibt_endbr_seal", Tables),
            (".smp_locks", Tables + 0x1000), ("runtime_ptr_top", Tables + 0x2000), ("runtime_shift_bits", Tables + 0x3000),
            (".init.text", Tables + 0x4000));
        var state = new BootState { IsUniprocessor = true, Features = FeaturesWith(XenIretPatch.XenPv) };

        linked.Check(linked.Predict(state, TextMechanism.EndbrSeal, TextMechanism.SmpLock, TextMechanism.XenIret));
        ITextMechanism[] mechanisms = [new SmpLocks(), new EndbrSeals(), new XenIretPatch()];
        Assert.Equal([3, 1, 1], mechanisms.Select(m => m.Count(linked.Kernel)));
    }

    [Fact]
    public void Later_kernels_seal_with_another_nop()
    {
        string code = Others.Replace("PATCHED_ENDBR", "nopl -42(%rax)", StringComparison.Ordinal);
        LinkedText linked = LinkedText.Of(
            code, TextRules.Linux72, (".ibt_endbr_seal", Tables), (".smp_locks", Tables + 0x1000), ("runtime_ptr_top", Tables + 0x2000),
            ("runtime_shift_bits", Tables + 0x3000), (".init.text", Tables + 0x4000));

        TextImage text = linked.Predict(new BootState(), TextMechanism.EndbrSeal);

        Assert.True(text.TryGet(linked.Symbol("_text") + 1, 4, out ReadOnlySpan<byte> bytes));
        Assert.Equal("0f1f40d6", Convert.ToHexStringLower(bytes));
    }

    [Fact]
    public void Runtime_constants_hold_the_value_in_every_operand()
    {
        LinkedText linked = LinkedText.Of(
            Others.Replace("PATCHED_ENDBR", "endbr64", StringComparison.Ordinal), TextRules.Linux612, (".ibt_endbr_seal", Tables),
            (".smp_locks", Tables + 0x1000), ("runtime_ptr_top", Tables + 0x2000), ("runtime_shift_bits", Tables + 0x3000),
            (".init.text", Tables + 0x4000));
        var state = new BootState
        {
            RuntimeConstants = new Dictionary<string, ulong> { ["top"] = 0x00007ffffffff000, ["bits"] = 17 },
        };

        TextImage text = linked.Predict(state, TextMechanism.RuntimeConstant);

        Assert.True(text.TryGet(linked.Symbol("_etext") + -10, 10, out ReadOnlySpan<byte> bytes));
        Assert.Equal("11b800f0ffffff7f0000", Convert.ToHexStringLower(bytes));
        Assert.Equal(2, new RuntimeConstants().Count(linked.Kernel));
    }

    [Fact]
    public void What_the_state_does_not_say_is_open_and_keeps_its_bytes()
    {
        LinkedText linked = LinkedText.Of(Labels + Keys, TextRules.Linux61, ("__jump_table", Tables));

        TextImage text = linked.Predict(new BootState(), TextMechanism.JumpLabel);

        TextSection section = text.Sections[0];
        Assert.True(section.Bytes.SequenceEqual(section.Original));
        Assert.Equal((5 * 2) + (4 * 5), Enumerable.Range(0, section.Length).Count(section.IsOpen));
    }

    private static Dictionary<VirtualAddress, int> KeysOf(LinkedText linked) => new()
    {
        [linked.Symbol("off")] = 0,
        [linked.Symbol("on")] = 1,
        [linked.Symbol("twice")] = 2,
        [linked.Symbol("switching")] = -1,
    };

    private static Dictionary<VirtualAddress, VirtualAddress> CallsOf(LinkedText linked) => new()
    {
        [linked.Symbol("__SCK__one")] = linked.Symbol("first"),
        [linked.Symbol("__SCK__two")] = linked.Symbol("second"),
        [linked.Symbol("__SCK__none")] = default,
        [linked.Symbol("__SCK__zero")] = linked.Symbol("__static_call_return0"),
        [linked.Symbol("__SCK__warn")] = linked.Symbol("__WARN_trap"),
        [linked.Symbol("__SCK__siteless")] = linked.Symbol("second"),
    };

    private static FeatureWords FeaturesWith(params int[] features)
    {
        uint[] words = new uint[24];
        foreach (int feature in features)
        {
            words[feature / 32] |= 1u << (feature % 32);
        }

        return FeatureWords.Of(words);
    }
}
