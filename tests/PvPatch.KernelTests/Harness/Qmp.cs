using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace PvPatch.KernelTests.Harness;

/// <summary>QEMU's control channel: one JSON object a line, events in between.</summary>
internal sealed class Qmp : IDisposable
{
    private readonly NetworkStream _stream;
    private readonly StreamReader _reader;

    public Qmp(Socket socket, TimeSpan timeout)
    {
        _stream = new NetworkStream(socket, ownsSocket: true)
        {
            ReadTimeout = (int)timeout.TotalMilliseconds,
            WriteTimeout = (int)timeout.TotalMilliseconds,
        };
        _reader = new StreamReader(_stream, System.Text.Encoding.UTF8);

        // The greeting comes first; no command is taken before the capabilities are settled.
        _ = _reader.ReadLine();
        Execute("qmp_capabilities");
    }

    /// <summary>Runs a command and gives its return value.</summary>
    /// <exception cref="InvalidOperationException">QEMU refused it.</exception>
    /// <exception cref="IOException">QEMU ended or did not answer in time.</exception>
    public JsonNode Execute(string command, JsonObject? arguments = null)
    {
        JsonObject request = new() { ["execute"] = command, ["arguments"] = arguments ?? [] };
        _stream.Write([.. JsonSerializer.SerializeToUtf8Bytes(request), (byte)'\n']);
        while (_reader.ReadLine() is { } line)
        {
            JsonNode answer = JsonNode.Parse(line) ?? throw new InvalidDataException("QEMU sent an empty answer.");
            if (answer["error"] is { } error)
            {
                throw new InvalidOperationException($"QEMU refused '{command}': {error.ToJsonString()}");
            }

            // Anything else is an event (STOP, RESUME and the like).
            if (answer["return"] is { } value)
            {
                return value;
            }
        }

        throw new IOException($"QEMU closed its control channel at '{command}'.");
    }

    public void Dispose()
    {
        _reader.Dispose();
        _stream.Dispose();
    }
}
