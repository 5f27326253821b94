namespace PvPatch.Tool.Demo;

/// <summary>The demo as JSON: its guests, and for each backend its plan as <c>plan --json</c> writes it, and the checks.</summary>
internal sealed record DemoDocument(IReadOnlyList<DemoGuestPart> Guests) : ToolDocument("pvpatch-demo", 2);

internal sealed record DemoGuestPart(int Bitness, string Address, string Code, IReadOnlyList<DemoBackend> Backends)
{
    public static DemoGuestPart Of(DemoGuest guest, IEnumerable<DemoRun> runs) => new(
        guest.Bitness,
        JsonOutput.Hex(guest.Start),
        HexBytes.Format(guest.Code.Span),
        [.. runs.Select(static r => new DemoBackend(
            r.Plan.Backend, r.Applied.Written, r.Verified, r.OutsideUntouched, r.WrittenAgain, r.Restored, JsonPart.Of(r.Plan)))]);
}

internal sealed record DemoBackend(
    string Backend, int Written, bool Verified, bool OutsideUntouched, int WrittenAgain, bool Restored, JsonPart Plan);
