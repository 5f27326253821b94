using System.Runtime.CompilerServices;
using PvPatch.Encoding;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What a backend puts at all sites of a kind: finished bytes but for one displacement, or what goes into an island.</summary>
internal sealed record LiveBody
{
    public required LiveForm Form { get; init; }

    public required PatchAction Action { get; init; }

    public PatchReason Reason { get; init; }

    public string? Detail { get; init; }

    /// <summary>The bytes, the displacement zero. Nothing for <see cref="LiveForm.Original"/> and <see cref="LiveForm.Several"/>.</summary>
    public SiteBytes Bytes { get; init; }

    /// <summary>Where the 32-bit displacement is; -1 where there is none. It counts from the site's end.</summary>
    public int Field { get; init; } = -1;

    /// <summary>What the displacement leads to. An island's address comes from the store.</summary>
    public VirtualAddress Target { get; init; }

    /// <summary>What the island does.</summary>
    public CodeContent? Island { get; init; }

    /// <summary>The body in place and nops behind it.</summary>
    public CodeTemplate? InPlace { get; init; }

    /// <summary>Why no site of the kind can be planned.</summary>
    public PatchDiagnostic? Error { get; init; }

    public static LiveBody Indirect(PatchReason reason, string? detail) =>
        new() { Form = LiveForm.Original, Action = PatchAction.LeaveAlone, Reason = reason, Detail = detail };

    public static LiveBody Failed(PatchDiagnostic error) =>
        new() { Form = LiveForm.Original, Action = PatchAction.LeaveAlone, Error = error };

    /// <summary>The bytes at a site.</summary>
    /// <param name="end">The site's end.</param>
    /// <param name="target">Where the displacement leads.</param>
    /// <param name="bytes">The bytes.</param>
    /// <returns>Whether the target is in reach.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryFinish(VirtualAddress end, VirtualAddress target, out SiteBytes bytes)
    {
        bytes = Bytes;
        if (Field < 0)
        {
            return true;
        }

        long distance = target - end;
        UInt128 field = (UInt128)(uint)distance << Field * 8;
        bytes = new SiteBytes(Bytes.Low | (ulong)field, Bytes.High | (ulong)(field >> 64));
        return (int)distance == distance;
    }
}
