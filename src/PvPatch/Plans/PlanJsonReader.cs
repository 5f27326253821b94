using System.Text.Json;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>Reads plans from JSON. Trusts nothing: lengths, order and names are checked as if the table came from a stranger.</summary>
internal static class PlanJsonReader
{
    private static readonly Dictionary<string, PatchAction> s_actions = Enum.GetValues<PatchAction>().ToDictionary(PlanJson.Name);
    private static readonly Dictionary<string, PatchReason> s_reasons = Enum.GetValues<PatchReason>().ToDictionary(PlanJson.Name);

    public static PatchPlan Read(JsonElement root)
    {
        if (root.ValueKind != JsonValueKind.Object || Text(root, "format") != PlanJson.Format)
        {
            throw NoPlan("it is not a stored plan", $"\"format\": \"{PlanJson.Format}\"");
        }

        if (Number(root, "version", 1, int.MaxValue) > PlanJson.Version)
        {
            throw NoPlan("it was stored by a later version of PvPatch", $"version {PlanJson.Version}");
        }

        int bitness = Number(root, "bitness", 32, 64);
        if (bitness is not (32 or 64))
        {
            throw NoPlan("the bitness is neither 32 nor 64", "32 or 64");
        }

        string backend = NonEmpty(root, "backend");
        string rules = NonEmpty(root, "rules");
        PlanSegment[] segments = [.. Array(root, "segments").EnumerateArray().Select(ReadSegment)];
        JsonElement sites = Array(root, "sites");
        PlanBuilder? previous = null;
        var shared = new Dictionary<PlanOutcome, PlanOutcome>();
        var decisions = new List<(VirtualAddress Address, byte[] Old, byte[] New, PlanOutcome Outcome)>();
        int index = 0;
        foreach (JsonElement site in sites.EnumerateArray())
        {
            (VirtualAddress address, byte[] old, byte[] @new, byte[]? replaces, PlanOutcome outcome) = ReadSite(site, index);
            outcome = shared.TryGetValue(outcome, out PlanOutcome? known) ? known : shared[outcome] = outcome;
            decisions.Add((address, old, @new, outcome));
            if (replaces is not null)
            {
                previous ??= new PlanBuilder(backend, rules, bitness, segments, 0);
                previous.Add(address, old, replaces, outcome);
            }

            index++;
        }

        var builder = new PlanBuilder(backend, rules, bitness, segments, decisions.Count) { Previous = previous?.Build() };
        foreach ((VirtualAddress address, byte[] old, byte[] @new, PlanOutcome outcome) in decisions)
        {
            builder.Add(address, old, @new, outcome);
        }

        foreach (JsonElement diagnostic in Array(root, "diagnostics").EnumerateArray())
        {
            builder.AddDiagnostic(ReadDiagnostic(diagnostic));
        }

        return builder.Build();
    }

    private static PlanSegment ReadSegment(JsonElement segment)
    {
        if (segment.ValueKind != JsonValueKind.Object || !segment.TryGetProperty("length", out JsonElement length)
            || length.ValueKind != JsonValueKind.Number || !length.TryGetInt64(out long bytes) || bytes < 0)
        {
            throw Inconsistent("a segment has no length", null);
        }

        return new PlanSegment(Text(segment, "name") ?? "", Address(segment, "address"), bytes);
    }

    private static (VirtualAddress Address, byte[] Old, byte[] New, byte[]? Replaces, PlanOutcome Outcome) ReadSite(
        JsonElement site, int index)
    {
        if (site.ValueKind != JsonValueKind.Object)
        {
            throw Inconsistent("a site is not an object", index);
        }

        VirtualAddress address = Address(site, "address");
        byte[] old = Bytes(site, "old", index) ?? throw Inconsistent("a site has no old bytes", index);
        byte[] @new = Bytes(site, "new", index) ?? throw Inconsistent("a site has no new bytes", index);
        byte[]? replaces = Bytes(site, "replaces", index);
        int length = Number(site, "length", 1, PatchSite.MaxBudget);
        if (old.Length != length || @new.Length != length)
        {
            throw Inconsistent($"a site of {length} bytes has {old.Length} old and {@new.Length} new ones", index);
        }

        if (replaces is not null && replaces.Length != length)
        {
            throw Inconsistent($"a site of {length} bytes replaces {replaces.Length}", index);
        }

        if (address.Value + (ulong)(length - 1) < address.Value)
        {
            throw Inconsistent("a site runs over the end of the address space", index);
        }

        if (!s_actions.TryGetValue(Text(site, "action") ?? "", out PatchAction action)
            || !s_reasons.TryGetValue(Text(site, "reason") ?? "", out PatchReason reason))
        {
            throw Inconsistent("a site has an action or reason that is not one", index);
        }

        if (action == PatchAction.LeaveAlone && !old.AsSpan().SequenceEqual(@new))
        {
            throw Inconsistent("a site is said to be left alone and has other new bytes than old ones", index);
        }

        RegisterSet set = default;
        string? clobbers = Text(site, "clobbers");
        if (clobbers is not null && !RegisterSet.TryParse(clobbers, out set))
        {
            throw Inconsistent("a site has clobbers that are no registers", index);
        }

        var outcome = new PlanOutcome
        {
            Label = Text(site, "slot") ?? "",
            Type = site.TryGetProperty("type", out _) ? Number(site, "type", 0, ushort.MaxValue) : null,
            Clobbers = clobbers is null ? null : set,
            Action = action,
            Reason = reason,
            Target = site.TryGetProperty("target", out _) ? Address(site, "target") : null,
            TargetName = Text(site, "targetName"),
            Detail = Text(site, "detail"),
        };
        return (address, old, @new, replaces, outcome);
    }

    private static PatchDiagnostic ReadDiagnostic(JsonElement diagnostic)
    {
        if (diagnostic.ValueKind != JsonValueKind.Object)
        {
            throw NoPlan("a diagnostic is not an object", "an object");
        }

        return PatchDiagnostic.Warning(NonEmpty(diagnostic, "code"), NonEmpty(diagnostic, "message")) with
        {
            SiteIndex = diagnostic.TryGetProperty("site", out _) ? Number(diagnostic, "site", 0, int.MaxValue) : null,
            Address = diagnostic.TryGetProperty("address", out _) ? Address(diagnostic, "address") : null,
            Found = Text(diagnostic, "found"),
            Expected = Text(diagnostic, "expected"),
            Help = Text(diagnostic, "help"),
        };
    }

    private static string? Text(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static string NonEmpty(JsonElement element, string name) =>
        Text(element, name) is { Length: > 0 } text ? text : throw NoPlan($"the member \"{name}\" is missing", "a text");

    private static int Number(JsonElement element, string name, int least, int most) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number)
        && number >= least && number <= most
            ? number
            : throw NoPlan($"the member \"{name}\" is missing or out of range", $"a number from {least} to {most}");

    private static VirtualAddress Address(JsonElement element, string name) =>
        VirtualAddress.TryParse(Text(element, name) ?? "", out VirtualAddress address)
            ? address
            : throw NoPlan($"the member \"{name}\" is missing or no address", "hexadecimal digits, as \"0xffffffff81000000\"");

    private static byte[]? Bytes(JsonElement element, string name, int index) =>
        Text(element, name) is not string text ? null
        : HexBytes.TryParse(text, out byte[]? bytes) ? bytes
        : throw Inconsistent($"the member \"{name}\" is not bytes in hexadecimal", index);

    private static JsonElement Array(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Array
            ? value
            : throw NoPlan($"the member \"{name}\" is missing", "an array");

    private static PatchException NoPlan(string message, string expected) =>
        new(PatchDiagnostic.Error(DiagnosticCodes.PlanFormat, message) with
        {
            Expected = expected,
            Help = "Store a plan with `pvpatch plan --json` or PlanJson.Write."
        });

    private static PatchException Inconsistent(string message, int? index) =>
        new(PatchDiagnostic.Error(DiagnosticCodes.PlanInconsistent, message) with { SiteIndex = index });
}
