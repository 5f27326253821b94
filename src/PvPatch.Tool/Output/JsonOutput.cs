using System.Globalization;
using System.Reflection;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace PvPatch.Tool.Output;

/// <summary>JSON documents: one to a run, UTF-8, indented, with a line feed behind. <c>docs/json.md</c> gives the schemas.</summary>
internal static class JsonOutput
{
    /// <summary>The tool's name and version.</summary>
    public static string Tool { get; } = "pvpatch "
        + typeof(JsonOutput).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0];

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

    public static void Write(Stream stream, ToolDocument document) =>
        Write(stream, json => JsonSerializer.Serialize(json, document, document.GetType(), ToolJson.Default));

    /// <summary>An address as all documents write it: <c>0x</c> and hexadecimal digits.</summary>
    public static string Hex(VirtualAddress address) => string.Create(CultureInfo.InvariantCulture, $"0x{address.Value:x}");

    /// <summary>An address, or null.</summary>
    public static string? Hex(VirtualAddress? address) => address is VirtualAddress there ? Hex(there) : null;

    /// <summary>The name of an enumeration's value as all documents write it.</summary>
    public static string Name<T>(T value)
        where T : struct, Enum => JsonNamingPolicy.CamelCase.ConvertName(value.ToString());
}
