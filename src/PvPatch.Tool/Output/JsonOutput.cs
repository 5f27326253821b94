using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace PvPatch.Tool.Output;

/// <summary>JSON documents: one to a run, UTF-8, indented, with a line feed behind. <c>docs/json.md</c> gives the schemas.</summary>
internal static class JsonOutput
{
    /// <summary>The version of every schema but the plan's own. It grows when something is taken away or changes its meaning.</summary>
    public const int Version = 1;

    public static void Write(Stream stream, Action<Utf8JsonWriter> write)
    {
        // Relaxed: quotation marks and control characters are escaped all the same; ' < > & are not, for nobody pastes this into HTML.
        var options = new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
        using (var json = new Utf8JsonWriter(stream, options))
        {
            write(json);
        }

        stream.WriteByte((byte)'\n');
        stream.Flush();
    }

    /// <summary>Starts the object that every document of the tool is, with its name and version.</summary>
    public static void Start(Utf8JsonWriter json, string format)
    {
        json.WriteStartObject();
        json.WriteString("format", format);
        json.WriteNumber("version", Version);
    }

    /// <summary>An address as all documents write it: <c>0x</c> and hexadecimal digits.</summary>
    public static string Hex(VirtualAddress address) => string.Create(CultureInfo.InvariantCulture, $"0x{address.Value:x}");

    public static void WriteDiagnostics(Utf8JsonWriter json, IEnumerable<PatchDiagnostic> diagnostics)
    {
        json.WriteStartArray("diagnostics");
        foreach (PatchDiagnostic diagnostic in diagnostics)
        {
            DiagnosticJson.Write(diagnostic, json);
        }

        json.WriteEndArray();
    }
}
