using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>
/// A guest small enough to look at as a whole, assembled when it is asked for: some sites, stubs for the functions they call, an ops
/// table, room for thunks, and the site table a compiler would have left.
/// </summary>
internal sealed class DemoGuest
{
    // Farther from the guest than any call reaches.
    private static readonly VirtualAddress s_far = 0xffffc90000000000;

    // The hosts' side: Xen's flags in the per-CPU segment, lguest's shared page, and a VMI ROM that answers six calls.
    private static readonly StandardBackendOptions s_options = new()
    {
        Xen = new XenOptions { DirectBodies = new XenDirectBodies { VcpuInfo = 0xb100 } },
        Lguest = new LguestOptions { LguestData = 0xc1200000 },
        Vmi = new VmiOptions
        {
            GetRelocation = static call => new VmiRelocation(
                call is VmiCall.InterruptReturn or VmiCall.SysExit ? VmiRelocationKind.JumpRel : VmiRelocationKind.CallRel,
                0xfc000000 + ((ulong)call * 32)),
        },
    };

    private readonly Dictionary<ulong, string> _names = [];

    private DemoGuest(int bitness)
    {
        Bitness = bitness;
        OpsLayout layout = StandardLayout.For(bitness);
        VirtualAddress start = bitness == 64 ? 0xffffffff81000000 : 0xc1000000;
        OpsTable = start + 0x100000;
        var assembler = new DemoAssembler(bitness, start, OpsTable, layout);
        Sites = SiteTable.Create([.. DemoSite.For(bitness).Select(assembler.AddSite)]);

        // Enough for two thunks, so that the next one shows what happens without room.
        Thunks = assembler.AddRoom(bitness == 64 ? 64 : 32);

        var functions = new Dictionary<string, VirtualAddress>();
        foreach (string name in DemoFunctions.Near(bitness))
        {
            functions[name] = assembler.AddStub();
        }

        foreach (string name in bitness == 64 ? DemoFunctions.Far : [])
        {
            functions[name] = s_far + functions.Count * 16;
        }

        Start = start;
        Code = assembler.Bytes;
        Registry = StandardBackends.CreateRegistry(bitness, new SlotTargets(functions), s_options);
        foreach (OpSlot slot in layout.Slots)
        {
            _names[assembler.AddressOf(slot).Value] = slot.Name;
        }

        foreach ((string name, VirtualAddress address) in functions)
        {
            _names[address.Value] = name;
        }
    }

    /// <summary>32 or 64.</summary>
    public int Bitness { get; }

    /// <summary>Run address of the code.</summary>
    public VirtualAddress Start { get; }

    /// <summary>The code as it was assembled.</summary>
    public ReadOnlyMemory<byte> Code { get; }

    /// <summary>The site table.</summary>
    public SiteTable Sites { get; }

    /// <summary>Every standard backend, over the guest's functions.</summary>
    public OpsRegistry Registry { get; }

    /// <summary>Run address of the ops table.</summary>
    public VirtualAddress OpsTable { get; }

    /// <summary>Room for save/restore thunks.</summary>
    public AddressRange Thunks { get; }

    /// <summary>Assembles the guest.</summary>
    public static DemoGuest Assemble(int bitness) => new(bitness);

    /// <summary>The name of the slot or function at an address.</summary>
    public string? NameOf(ulong address) => _names.GetValueOrDefault(address);

    /// <summary>The code in memory of its own, to be patched.</summary>
    public CodeImage CopyImage() => new(Bitness, [new CodeSegment("guest", Start, Code.ToArray())]);
}
