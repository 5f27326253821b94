using System.Globalization;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>One row of <c>decisions.txt</c> in the engine's words: slot, operation, site, and what is to come of them.</summary>
internal sealed class GoldenDecision
{
    private const string C64 = "rax,rcx,rdx,rsi,rdi,r8,r9,r10,r11,flags";
    private const string Static = " static";
    private const string C32 = "rax,rcx,rdx,flags";
    private const ulong SomeOtherFunction = 0x10; // what a body stands for in a slot that was given another function

    private readonly GoldenTable _bodies;

    public GoldenDecision(GoldenRow row, GoldenTable bodies)
    {
        _bodies = bodies;
        Row = row;
        Rules = LinuxRules.TryGet(row["rules"], out PatchRules? rules) ? rules : throw row.Error("unknown rules");
        Nops = NopStyle.All.FirstOrDefault(
            n => n.Name == row["nops"] + (Bits == 32 && row["nops"].StartsWith("x86_", StringComparison.Ordinal) ? "-32" : ""))
            ?? throw row.Error("unknown nops");
        string[] sides = row["original -> expected"].Split("->", StringSplitOptions.TrimEntries);
        Original = row.ParseBytes(sides[0]);
        Expected = row.ParseBytes(sides[1]);
        string action = row["action"];
        IsStop = action == "Stop";
        int bracket = action.IndexOf('(', StringComparison.Ordinal);
        Action = IsStop ? PatchAction.LeaveAlone : Enum.Parse<PatchAction>(bracket < 0 ? action : action[..bracket]);
        Reason = bracket < 0 ? PatchReason.None : Enum.Parse<PatchReason>(action[(bracket + 1)..^1]);
        Convention = row["operation"].EndsWith(" windows", StringComparison.Ordinal) ? CallConvention.WindowsX64
            : row["operation"].EndsWith(Static, StringComparison.Ordinal) ? CallConvention.StaticRegisters
            : Bits == 32 ? CallConvention.I386RegParm
            : CallConvention.KernelSysV;
        Operation = IsLinux ? LinuxOperation() : DefaultOperation();
    }

    public GoldenRow Row { get; }

    public PatchRules Rules { get; }

    public NopStyle Nops { get; }

    public Operation Operation { get; }

    public CallConvention Convention { get; }

    public byte[] Original { get; }

    public byte[] Expected { get; }

    public PatchAction Action { get; }

    public PatchReason Reason { get; }

    /// <summary>Whether the kernel itself would stop here, so that there must be no plan.</summary>
    public bool IsStop { get; }

    public int Bits => Row.Int32("bits");

    public string Slot => Row["slot"];

    public SlotKind Kind => Row["kind"] == "jump" ? SlotKind.Jump : SlotKind.Call;

    public VirtualAddress Address => Row.Number("site");

    public VirtualAddress? Bug =>
        Row["operation"].EndsWith("/missing", StringComparison.Ordinal) && Row["target"] != "-" ? Row.Number("target") : null;

    public VirtualAddress? Room => Setting("room");

    public SiteTraits Traits => Row["clobbers"].Contains("nostack", StringComparison.Ordinal) ? SiteTraits.NoStack : SiteTraits.None;

    /// <summary>Rows with the same key can stand in one plan where their slots' operations agree.</summary>
    public string PlanKey => string.Create(
        CultureInfo.InvariantCulture, $"{Rules.Name}|{Bits}|{Nops.Name}|{Bug}|{Room}|{(IsStop || Room is not null ? Row.Line : 0)}");

    private bool IsLinux => Row["rules"] != "Default";

    public PatchSite Site(int slot)
    {
        KernelClobberEncoding encoding = KernelEras.Clobbers(Row["rules"], Bits);
        RegisterSet clobbers = IsLinux ? encoding.Decode((ushort)Row.Number("clobbers"))
            : Set(Row["clobbers"].Replace("nostack", "", StringComparison.Ordinal).Trim());
        return new PatchSite(Address, slot, Row.Int32("budget"), clobbers, Traits);
    }

    public override string ToString() => Row.ToString();

    private Operation LinuxOperation()
    {
        string[] parts = Row["operation"].Split(' ')[0].Split('/');
        (string hook, string pointer) = (parts[0], parts[1]);
        if (hook == "vmi")
        {
            return VmiOperation(pointer);
        }

        bool hasBody = hook == "native" ? !Rules.ByPointerSlots.Contains(Slot) || pointer is "native" or "call" : pointer == "direct";
        GoldenRow? body = hasBody ? KernelEras.FindBody(_bodies, hook, Bits, Slot, Rules.Name) : null;
        if (body is not null)
        {
            return WithBody(body, hook, pointer);
        }

        VirtualAddress target = Row["target"] == "-" ? 0 : Row.Number("target");
        return pointer switch
        {
            "missing" => Operation.Missing,
            "nop" => Operation.Nop.WithTarget(target),
            "ident32" => Operation.Identity32.WithTarget(target),
            "ident64" => Operation.Identity64.WithTarget(target),
            "native" or "call" or "direct" => Operation.Call(target),
            _ => throw Row.Error("unknown pointer"),
        };
    }

    private Operation WithBody(GoldenRow body, string hook, string pointer)
    {
        byte[] bytes = body.Bytes("bytes");
        var inline = bytes.Length == 0
            ? Operation.Nop : Operation.Inline(InlineBody.FromBytes(Relocate(bytes, body), body.OptionalNumber("site") ?? Address.Value));
        if (hook != "native")
        {
            inline = inline.DefaultingWhereTooLong();
        }

        // A hook that goes by slot does not look at the pointer at all; what it is shows only where the body is not used.
        return pointer == "missing" || bytes.Length == 0 ? inline
            : pointer == "call" ? inline.WithTarget(SomeOtherFunction).Retarget(Row.Number("target"))
            : inline.WithTarget(Row.Number("target"));
    }

    /// <summary>
    /// VMI's hook has no default rule: it writes the call or jump the ROM asks for, nothing, or leaves the site alone. Only seven slots are
    /// asked about.
    /// </summary>
    private Operation VmiOperation(string answer)
    {
        bool known = Slot is "irq.irq_disable" or "irq.irq_enable" or "irq.save_fl" or "irq.restore_fl" or "irq.save_fl_irq_disable"
            or "cpu.iret" or "cpu.irq_enable_sysexit";
        if (!known || answer == "none")
        {
            return Operation.Missing.LeftAloneByBackend();
        }

        if (answer == "nop")
        {
            return Operation.Inline(InlineBody.Nothing);
        }

        ulong[] targets = [.. Row["target"].Split(',', StringSplitOptions.TrimEntries).Select(Row.ParseNumber)];
        return Operation.Inline(InlineBody.Create(a =>
        {
            foreach (ulong target in targets)
            {
                if (answer == "call")
                {
                    a.call(target);
                }
                else
                {
                    a.jmp(target);
                }
            }
        }));
    }

    private Operation DefaultOperation()
    {
        string[] words = Row["operation"].Replace(Static, "", StringComparison.Ordinal).Split(' ', 2);
        switch (words[0])
        {
            case "missing":
                return Operation.Missing;
            case "nop":
                return Operation.Nop;
            case "identity32":
                return Operation.Identity32;
            case "identity64":
                return Operation.Identity64;
            case "inline":
                return Operation.Inline(InlineBody.FromBytes(Row.ParseBytes(words[1])));
            case "jump":
                return Operation.Jump(Row.Number("target"));
            case "call":
                return Operation.Call(Row.Number("target"), destroys: Set(words[1].Split(' ')[0]));
            default:
                throw Row.Error("unknown operation");
        }
    }

    /// <summary>Puts the row's addresses (name=0x...) in place of those the body was written down with.</summary>
    private byte[] Relocate(byte[] bytes, GoldenRow body)
    {
        foreach (string reference in body["references"].Split(',', StringSplitOptions.TrimEntries)
            .Where(r => r.Contains('=', StringComparison.Ordinal)))
        {
            string[] pair = reference.Split('=');
            uint from = (uint)Row.ParseNumber(pair[1]);
            uint to = (uint)(Setting(pair[0])?.Value ?? from);
            int at = bytes.AsSpan().IndexOf(BitConverter.GetBytes(from));
            if (from != to)
            {
                BitConverter.TryWriteBytes(bytes.AsSpan(at), to);
                Assert.Equal(-1, bytes.AsSpan().IndexOf(BitConverter.GetBytes(from)));
            }
        }

        return bytes;
    }

    private VirtualAddress? Setting(string name)
    {
        string? found = Row["operation"].Split(' ', ',').FirstOrDefault(w => w.StartsWith(name + "=", StringComparison.Ordinal));
        return found is null ? null : new VirtualAddress(Row.ParseNumber(found[(name.Length + 1)..]));
    }

    private RegisterSet Set(string text) =>
        RegisterSet.TryParse(text switch { "c64" => C64, "c32" => C32, _ => text }, out RegisterSet set)
            ? set : throw Row.Error("unknown registers");
}
