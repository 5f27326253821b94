using Iced.Intel;
using PvGuest.Kernel;
using PvPatch.Paravirt;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// The ROM: the hypervisor's own code in the guest, which may do what the guest may not. Calls leave it by <c>out 56,al</c>.
/// </summary>
internal static class VmiRom
{
    public const uint EnableInterrupts = 29;
    public const uint SysExit = 34;
    public const uint SetEntry = 40;
    public const uint SetCr3 = 41;
    public const uint FlushTlb = 42;
    public const uint UpdateKernelStack = 43;
    public const uint WriteDescriptor = 44;
    public const uint SetIdt = 45;
    public const uint Halt = 46;
    public const uint Shutdown = 47;
    public const uint ClearTaskSwitched = 48;
    public const uint Flush = 73;

    public const ulong Enabled = Shared + 0x400;
    public const ulong Pending = Enabled + 4;
    public const ulong FaultAddress = Enabled + 8;
    public const ulong Root = Enabled + 12;
    public const ulong Count = Enabled + 20;
    public const ulong Queue = Shared + 0x5000;
    public const int QueueEntry = 16;
    public const int MostCalls = 64;
    private const ulong Mode = Enabled + 16;
    private const byte Port = 0x56;

    private static readonly Dictionary<string, ulong> s_addresses = [];

    /// <summary>The ROM's bytes.</summary>
    public static byte[] Code { get; } = Assemble();

    public static ulong AddressOf(string call) => s_addresses[call];

    /// <summary>How the six calls whose sites a guest patches are made.</summary>
    public static VmiRelocation GetRelocation(VmiCall call) => call switch
    {
        VmiCall.EnableInterrupts => new VmiRelocation(VmiRelocationKind.CallRel, AddressOf("enable")),
        VmiCall.DisableInterrupts => new VmiRelocation(VmiRelocationKind.CallRel, AddressOf("disable")),
        VmiCall.GetInterruptMask => new VmiRelocation(VmiRelocationKind.CallRel, AddressOf("get")),
        VmiCall.SetInterruptMask => new VmiRelocation(VmiRelocationKind.CallRel, AddressOf("set")),
        VmiCall.InterruptReturn => new VmiRelocation(VmiRelocationKind.JumpRel, AddressOf("iret")),
        _ => new VmiRelocation(VmiRelocationKind.JumpRel, AddressOf("sysexit")),
    };

    private static byte[] Assemble()
    {
        var a = new Assembler(32);
        var labels = new Dictionary<string, Label>();
        Label off = a.CreateLabel();
        Begin("enable");
        a.mov(__dword_ptr[Enabled], GuestMemory.InterruptFlag);
        Begin("check");
        a.cmp(__dword_ptr[Pending], 0);
        a.je(off);
        WriteOut(EnableInterrupts);
        a.Label(ref off);
        a.ret();
        Begin("disable");
        a.mov(__dword_ptr[Enabled], 0);
        a.ret();
        Begin("get");
        a.mov(eax, __dword_ptr[Enabled]);
        a.ret();
        Begin("set");
        a.and(eax, GuestMemory.InterruptFlag);
        a.mov(__dword_ptr[Enabled], eax);
        a.jne(labels["check"]);
        a.ret();
        Begin("iret");
        a.push(eax);
        a.mov(eax, __dword_ptr[esp + 12]); // the flags of the frame
        a.and(eax, GuestMemory.InterruptFlag);
        a.mov(__dword_ptr[Enabled], eax);
        a.pop(eax);
        a.iretd();
        Begin("sysexit");
        a.mov(__dword_ptr[Enabled], GuestMemory.InterruptFlag);
        a.mov(eax, SysExit);
        a.@out(Port, al);

        // call(eax, edx, ecx): at once without a lazy mode, else into the queue. No interrupt between the parts of an entry.
        Label now = a.CreateLabel();
        Label room = a.CreateLabel();
        Label entered = a.CreateLabel();
        Label restore = a.CreateLabel();
        Begin("call");
        a.cmp(__dword_ptr[Mode], 0);
        a.je(now);
        a.push(__dword_ptr[Enabled]);
        a.mov(__dword_ptr[Enabled], 0);
        Begin("call.masked");
        a.push(ebx);
        a.mov(ebx, __dword_ptr[Count]);
        a.cmp(ebx, MostCalls);
        a.jb(room);
        WriteOut(Flush);
        a.xor(ebx, ebx);
        a.Label(ref room);
        a.shl(ebx, 4);
        a.mov(__dword_ptr[ebx + (int)Queue], eax);
        a.mov(__dword_ptr[ebx + (int)Queue + 4], edx);
        a.mov(__dword_ptr[ebx + (int)Queue + 8], ecx);
        a.inc(__dword_ptr[Count]);
        a.pop(ebx);
        a.jmp(restore);
        a.Label(ref now);
        a.zero_bytes();
        Begin("call.now");
        a.@out(Port, al);
        a.ret();

        // set_lazy_mode(eax): leaving flushes first.
        Begin("set_lazy_mode");
        a.push(__dword_ptr[Enabled]);
        a.mov(__dword_ptr[Enabled], 0);
        a.test(eax, eax);
        a.jne(entered);
        Begin("set_lazy_mode.leave");
        a.cmp(__dword_ptr[Count], 0);
        a.je(entered);
        WriteOut(Flush);
        a.Label(ref entered);
        a.mov(__dword_ptr[Mode], eax);
        a.Label(ref restore);
        a.pop(eax);
        a.mov(__dword_ptr[Enabled], eax);
        a.test(eax, eax);
        a.jne(labels["check"]);
        a.ret();

        using var bytes = new MemoryStream();
        AssemblerResult result = a.Assemble(new StreamCodeWriter(bytes), Rom, BlockEncoderOptions.ReturnNewInstructionOffsets);
        foreach ((string name, Label label) in labels)
        {
            s_addresses[name] = result.GetLabelRIP(label);
        }

        return bytes.ToArray();

        void Begin(string name)
        {
            Label label = a.CreateLabel(name);
            a.Label(ref label);
            a.zero_bytes();
            labels[name] = label;
        }

        void WriteOut(uint number)
        {
            a.push(eax);
            a.mov(eax, number);
            a.@out(Port, al);
            a.pop(eax);
        }
    }
}
