using System.Text.Json;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>The demo for scripts: for each backend its plan as <c>plan --json</c> writes it, and what was checked.</summary>
internal static class DemoJson
{
    public static void Write(DemoGuest guest, IReadOnlyList<DemoRun> runs, Utf8JsonWriter json)
    {
        JsonOutput.Start(json, "pvpatch-demo");
        json.WriteNumber("bitness", guest.Bitness);
        json.WriteString("address", JsonOutput.Hex(guest.Start));
        json.WriteString("code", HexBytes.Format(guest.Code.Span));
        json.WriteStartArray("backends");
        foreach (DemoRun run in runs)
        {
            json.WriteStartObject();
            json.WriteString("backend", run.Plan.Backend);
            json.WriteNumber("written", run.Applied.Written);
            json.WriteBoolean("verified", run.Verified);
            json.WriteBoolean("outsideUntouched", run.OutsideUntouched);
            json.WriteNumber("writtenAgain", run.WrittenAgain);
            json.WriteBoolean("restored", run.Restored);
            json.WritePropertyName("plan");
            PlanJson.Write(run.Plan, json);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }
}
