using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Properties;

/// <summary>A <see cref="Scenario"/> with addresses: image, site table, layout and backends.</summary>
internal sealed class BuiltScenario
{
    private const int RoomLength = 0x300;
    private readonly Scenario _scenario;
    private readonly Random _random;
    private readonly List<byte[]> _originals = [];

    public BuiltScenario(Scenario scenario)
    {
        _scenario = scenario;
        _random = new Random(scenario.Seed);
        Base = scenario.High ? (scenario.Bitness == 64 ? 0xffffffff81000000 : 0xc0100000) : 0x400000UL;
        Layout = OpsLayout.Create(b => b.Table("ops", t =>
        {
            for (int i = 0; i < scenario.Slots.Count; i++)
            {
                t.Slot($"s{i}", scenario.Slots[i].Kind, scenario.Slots[i].Convention);
            }
        }));
        Backends = [.. scenario.Backends.Select((ops, number) => Backend.Create($"backend{number}", Layout, b =>
        {
            for (int i = 0; i < ops.Count; i++)
            {
                b.Set($"ops.s{i}", MakeOperation(ops[i], scenario.Slots[i].Kind));
            }
        }))];
        (Sites, Image) = BuildImage();
        foreach (CodeSegment segment in Image.Segments)
        {
            _originals.Add(segment.Bytes.ToArray());
        }
    }

    public ulong Base { get; }

    public OpsLayout Layout { get; }

    public IReadOnlyList<Backend> Backends { get; }

    public CodeImage Image { get; }

    public SiteTable Sites { get; }

    public VirtualAddress TableAddress => Base + 0x300000;

    public AddressRange? Room => _scenario.Room ? new AddressRange(Base + 0x100008, RoomLength - 16) : null;

    public PlanOptions Options(PatchPlan? previous = null) => new()
    {
        Nops = NopStyles()[_scenario.Nops % NopStyles().Length],
        OpsTableAddress = TableAddress,
        Thunks = Room,
        Previous = previous,
    };

    public PatchPlan Plan(int backend, PatchPlan? previous = null) =>
        new PatchPlanner().Plan(Image, Sites, Backends[backend], Options(previous));

    public OpSpec SpecOf(int backend, int slot) => _scenario.Backends[backend][slot];

    /// <summary>The bytes of all segments, one array each.</summary>
    public byte[][] Snapshot() => [.. Image.Segments.Select(s => s.Bytes.ToArray())];

    public bool HoldsOriginals() => Image.Segments.Select((s, i) => s.Bytes.Span.SequenceEqual(_originals[i])).All(same => same);

    public Operation MakeOperation(OpSpec spec, SlotKind kind) => spec.Kind switch
    {
        OpKind.Missing => Operation.Missing,
        OpKind.Nop => Operation.Nop,
        OpKind.Identity32 => Operation.Identity32,
        OpKind.Identity64 => Operation.Identity64,
        OpKind.Body => Operation.Inline(Bodies.Of(_scenario.Bitness)[spec.Body]),
        OpKind.BodyOrCall => Operation.Inline(Bodies.Of(_scenario.Bitness)[spec.Body]).WithTarget(Near(spec.Target)),
        OpKind.Call => Operation.Call(Near(spec.Target)),
        OpKind.CallFar => Operation.Call(_scenario.Bitness == 64 ? Base ^ 0x0000_7000_0000_0000 : Near(spec.Target) ^ 0x80000000),
        OpKind.CallThatDestroysOnlyRax => Operation.Call(Near(spec.Target), destroys: RegisterSet.Rax),
        OpKind.CallWithCaller when kind == SlotKind.Call => Operation.Call(Near(spec.Target)).PassingCaller(1),
        _ => Operation.Jump(Near(spec.Target)),
    };

    private ulong Near(int target) => Base + 0x200000 + (ulong)target * 0x30;

    private NopStyle[] NopStyles() => _scenario.Bitness == 64
        ? [NopStyle.P6, NopStyle.K8, NopStyle.Linux612X64, NopStyle.Linux61X64]
        : [NopStyle.Intel, NopStyle.K7, NopStyle.Linux612X86, NopStyle.P6];

    private (SiteTable Sites, CodeImage Image) BuildImage()
    {
        var sites = new List<PatchSite>();
        var segments = new List<CodeSegment>();
        var bytes = new List<byte>();
        ulong start = Base;
        foreach (SiteSpec spec in _scenario.Sites)
        {
            if (spec.Gap >= 64)
            {
                start = EndSegment(segments, bytes, start) + (ulong)spec.Gap;
            }
            else
            {
                bytes.AddRange(Noise(spec.Gap));
            }

            VirtualAddress address = start + (ulong)bytes.Count;
            sites.Add(new PatchSite(address, spec.Slot, spec.Budget, spec.Clobbers, spec.Traits));
            bytes.AddRange(Original(spec, address.Value));
        }

        EndSegment(segments, bytes, start);
        if (_scenario.Room)
        {
            segments.Add(new CodeSegment("room", Base + 0x100000, Noise(RoomLength)));
        }

        PatchSite[] shuffled = [.. sites];
        _random.Shuffle(shuffled);
        return (SiteTable.Create(shuffled), new CodeImage(_scenario.Bitness, segments));
    }

    /// <summary>Ends a segment a few bytes (or none) behind its last site; gives the address behind it.</summary>
    private ulong EndSegment(List<CodeSegment> segments, List<byte> bytes, ulong start)
    {
        bytes.AddRange(Noise(_random.Next(3) switch { 0 => 0, 1 => _random.Next(16), _ => _random.Next(64) }));
        ulong end = start + (ulong)bytes.Count;
        segments.Add(new CodeSegment($"text{segments.Count}", start, bytes.ToArray()));
        bytes.Clear();
        return end;
    }

    private byte[] Noise(int count)
    {
        byte[] noise = new byte[count];
        _random.NextBytes(noise);
        return noise;
    }

    private byte[] Original(SiteSpec spec, ulong address)
    {
        bool jump = _scenario.Slots[spec.Slot].Kind == SlotKind.Jump;
        byte modRm = (byte)(jump ? 4 << 3 : 2 << 3);
        byte[] core = spec.Form switch
        {
            SiteForm.ThroughTable => Through(spec.Slot, address, modRm),
            SiteForm.ThroughAbsoluteTable => [0xff, (byte)(modRm | 4), 0x25, .. Absolute(spec.Slot)],
            SiteForm.ThroughRegister => [0xff, (byte)(modRm | 3)],
            SiteForm.ThroughRegisterAndOffset => [0xff, (byte)(modRm | 0x43), 0x08],
            SiteForm.PushedAround => [0x51, .. Through(spec.Slot, address + 1, modRm), 0x59],
            SiteForm.Prefixed => [0x2e, .. Through(spec.Slot, address + 1, modRm)],
            _ => [],
        };
        if (core.Length > spec.Budget)
        {
            core = spec.Budget >= 2 ? [0xff, (byte)(modRm | 3)] : [];
        }

        byte[] tail = new byte[spec.Budget - core.Length];
        if (spec.Tail == 0)
        {
            NopStyle.Default(_scenario.Bitness).Fill(tail);
        }
        else
        {
            tail.AsSpan().Fill(spec.Tail == 1 ? (byte)0x90 : (byte)0xcc);
        }

        return [.. core, .. tail];
    }

    private byte[] Through(int slot, ulong address, byte modRm)
    {
        byte[] code = [0xff, (byte)(modRm | 5), 0, 0, 0, 0];
        if (_scenario.Bitness == 64)
        {
            BinaryPrimitives.WriteInt32LittleEndian(code.AsSpan(2), checked((int)(long)(SlotAddress(slot) - (address + 6))));
        }
        else
        {
            Absolute(slot).CopyTo(code, 2);
        }

        return code;
    }

    private byte[] Absolute(int slot) => BitConverter.GetBytes(unchecked((uint)SlotAddress(slot)));

    private ulong SlotAddress(int slot) => TableAddress.Value + (ulong)(slot * _scenario.Bitness / 8);
}
