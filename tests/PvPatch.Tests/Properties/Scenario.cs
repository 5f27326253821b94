using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Properties;

/// <summary>What a slot does, before addresses are known.</summary>
public enum OpKind
{
    Missing,
    Nop,
    Identity32,
    Identity64,
    Body,
    BodyOrCall,
    Call,
    CallFar,
    CallThatDestroysOnlyRax,
    CallWithCaller,
    Jump,
}

/// <summary>What stands at a site before it is patched.</summary>
public enum SiteForm
{
    ThroughTable,
    ThroughAbsoluteTable,
    ThroughRegister,
    ThroughRegisterAndOffset,
    PushedAround,
    Prefixed,
    NoCall,
}

public sealed record OpSpec(OpKind Kind, int Body, int Target);

public sealed record SlotSpec(SlotKind Kind, CallConvention Convention);

/// <summary>One site; its address follows from the sites before it and the gap to them.</summary>
public sealed record SiteSpec(int Gap, int Slot, int Budget, RegisterSet Clobbers, SiteTraits Traits, SiteForm Form, int Tail)
{
    public override string ToString() => $"(gap {Gap} slot {Slot} budget {Budget} clobbers {Clobbers} {Traits} {Form} tail {Tail})";
}

/// <summary>
/// A whole case: layout, three backends, sites and how the image is cut into segments, all small numbers that shrink well.
/// </summary>
public sealed record Scenario(
    int Bitness, bool High, IReadOnlyList<SlotSpec> Slots, IReadOnlyList<IReadOnlyList<OpSpec>> Backends, IReadOnlyList<SiteSpec> Sites,
    bool Room, int Nops, int Seed)
{
    public override string ToString() =>
        $"""
        {Bitness}-bit, {(High ? "high" : "low")}, room {Room}, nops {Nops}, seed {Seed}
          slots {string.Join(" ", Slots.Select(s => $"{s.Kind}/{s.Convention}"))}
          {string.Join("\n  ", Backends.Select(b => "backend " + string.Join(" ", b.Select(o => $"{o.Kind}/{o.Body}/{o.Target}"))))}
          sites {string.Join(" ", Sites)}
        """;
}
