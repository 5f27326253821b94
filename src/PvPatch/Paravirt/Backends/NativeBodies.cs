using System.Collections.Frozen;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Paravirt;

/// <summary>
/// The instructions that stand for operations on bare hardware. Until 5.10 they were the kernel's own tables of native code, later
/// they are replacement texts of alternatives; the bytes are the same.
/// </summary>
internal sealed class NativeBodies
{
    private static readonly FrozenDictionary<string, InlineBody> s_both = new Dictionary<string, InlineBody>
    {
        ["irq.irq_disable"] = InlineBody.Create(static a => a.cli()), // cli: fa
        ["irq.irq_enable"] = InlineBody.Create(static a => a.sti()), // sti: fb
        ["cpu.clts"] = InlineBody.Create(static a => a.clts()), // clts: 0f 06
    }.ToFrozenDictionary(StringComparer.Ordinal);

    private static readonly FrozenDictionary<string, InlineBody> s_32 = new Dictionary<string, InlineBody>
    {
        // pushf; pop eax: 9c 58
        ["irq.save_fl"] = InlineBody.Create(static a =>
        {
            a.pushfd();
            a.pop(eax);
        }),

        // push eax; popf: 50 9d
        ["irq.restore_fl"] = InlineBody.Create(static a =>
        {
            a.push(eax);
            a.popfd();
        }),

        // pushf; pop eax; cli: 9c 58 fa. One site with two calls, 2.6.20 and 2.6.21.
        ["irq.save_fl_irq_disable"] = InlineBody.Create(static a =>
        {
            a.pushfd();
            a.pop(eax);
            a.cli();
        }),
        ["cpu.iret"] = InlineBody.Create(static a => a.iretd()), // iret: cf

        // sti; sysexit: fb 0f 35. The instruction after sti still runs with interrupts off, so none comes between.
        ["cpu.irq_enable_sysexit"] = InlineBody.Create(static a =>
        {
            a.sti();
            a.sysexit();
        }),
        ["cpu.read_tsc"] = InlineBody.Create(static a => a.rdtsc()), // rdtsc: 0f 31
        ["mmu.read_cr2"] = InlineBody.Create(static a => a.mov(eax, cr2)), // mov eax,cr2: 0f 20 d0
        ["mmu.read_cr3"] = InlineBody.Create(static a => a.mov(eax, cr3)), // mov eax,cr3: 0f 20 d8
        ["mmu.write_cr3"] = InlineBody.Create(static a => a.mov(cr3, eax)), // mov cr3,eax: 0f 22 d8
        ["lock.queued_spin_unlock"] = InlineBody.Create(static a => a.mov(__byte_ptr[eax], 0)), // mov byte [eax],0: c6 00 00
        ["lock.vcpu_is_preempted"] = InlineBody.Create(static a => a.xor(eax, eax)), // xor eax,eax: 31 c0
    }.ToFrozenDictionary(StringComparer.Ordinal);

    private static readonly FrozenDictionary<string, InlineBody> s_64 = new Dictionary<string, InlineBody>
    {
        // pushfq; pop rax: 9c 58
        ["irq.save_fl"] = InlineBody.Create(static a =>
        {
            a.pushfq();
            a.pop(rax);
        }),

        // push rdi; popfq: 57 9d
        ["irq.restore_fl"] = InlineBody.Create(static a =>
        {
            a.push(rdi);
            a.popfq();
        }),
        ["cpu.iret"] = InlineBody.Create(static a => a.iretq()), // iretq: 48 cf
        ["cpu.swapgs"] = InlineBody.Create(static a => a.swapgs()), // swapgs: 0f 01 f8
        ["cpu.wbinvd"] = InlineBody.Create(static a => a.wbinvd()), // wbinvd: 0f 09; 64-bit kernels only

        // swapgs; sti; sysexit: 0f 01 f8 fb 0f 35. A 32-bit user task returns, hence no REX.W before sysexit.
        ["cpu.irq_enable_sysexit"] = InlineBody.Create(static a =>
        {
            a.swapgs();
            a.sti();
            a.sysexit();
        }),

        // swapgs; sysretq: 0f 01 f8 48 0f 07
        ["cpu.usergs_sysret64"] = InlineBody.Create(static a =>
        {
            a.swapgs();
            a.sysretq();
        }),

        // swapgs; sysretl: 0f 01 f8 0f 07
        ["cpu.usergs_sysret32"] = InlineBody.Create(static a =>
        {
            a.swapgs();
            a.sysret();
        }),
        ["mmu.read_cr2"] = InlineBody.Create(static a => a.mov(rax, cr2)), // mov rax,cr2: 0f 20 d0
        ["mmu.read_cr3"] = InlineBody.Create(static a => a.mov(rax, cr3)), // mov rax,cr3: 0f 20 d8
        ["mmu.write_cr3"] = InlineBody.Create(static a => a.mov(cr3, rdi)), // mov cr3,rdi: 0f 22 df
        ["mmu.flush_tlb_single"] = InlineBody.Create(static a => a.invlpg(__[rdi])), // invlpg [rdi]: 0f 01 3f
        ["lock.queued_spin_unlock"] = InlineBody.Create(static a => a.mov(__byte_ptr[rdi], 0)), // mov byte [rdi],0: c6 07 00
        ["lock.vcpu_is_preempted"] = InlineBody.Create(static a => a.xor(eax, eax)), // xor eax,eax: 31 c0
    }.ToFrozenDictionary(StringComparer.Ordinal);

    // xor rax,rax: 48 31 c0. The same effect as without REX.W; 6.1 and 6.12 have it so.
    private static readonly InlineBody s_wideFalse = InlineBody.Create(static a => a.xor(rax, rax));

    private readonly int _bitness;
    private readonly bool _inlineIret;
    private readonly bool _wideFalse;
    private readonly InlineBody _syscallReturn;

    public NativeBodies(PvSlots slots, int bitness, NativeOptions options)
    {
        _bitness = bitness;
        _inlineIret = options.InlineInterruptReturn ?? (bitness == 32 || slots.Has("cpu.read_tsc"));
        _wideFalse = bitness == 64 && (options.WideVcpuIsPreempted ?? (!slots.HasPatchHook && slots.Has("cpu.io_delay")));
        int savedStack = options.SavedUserStackOffset;

        // mov rsp,gs:[saved]; swapgs; sysretq: 65 48 8b 24 25 a32, 0f 01 f8, 48 0f 07. 15 bytes, more than any site of its
        // time had: kernels that know this body leave the call as it is, which is why it must be known here.
        _syscallReturn = InlineBody.Create(a =>
        {
            a.mov(rsp, __qword_ptr.gs[savedStack]);
            a.swapgs();
            a.sysretq();
        });
    }

    /// <summary>The body of a slot.</summary>
    /// <param name="name">The slot's standard name.</param>
    /// <returns>The body, <see langword="null"/> where there is none.</returns>
    public InlineBody? Find(string name) => name switch
    {
        "cpu.iret" when !_inlineIret => null,
        "cpu.irq_enable_syscall_ret" => _bitness == 64 ? _syscallReturn : null,
        "lock.vcpu_is_preempted" when _wideFalse => s_wideFalse,
        _ => (_bitness == 64 ? s_64 : s_32).GetValueOrDefault(name) ?? s_both.GetValueOrDefault(name),
    };
}
