using System.Buffers;
using System.Text;

namespace PvPatch.Tool.Output;

/// <summary>Style of a piece of text on a terminal with colours.</summary>
internal enum Ink
{
    Plain,
    Strong,
    Faint,
    Good,
    Notice,
    Warning,
    Bad,
}

/// <summary>
/// Text output. The one place that writes it: names and texts that come from a file lose their control characters here, so that no file can
/// send commands to the user's terminal.
/// </summary>
internal sealed class TextOutput(Stream stream, bool colour)
{
    private const int FlushAt = 1 << 14;

    // C0, DEL and C1: whatever a terminal takes for a command.
    private static readonly SearchValues<char> s_controls = SearchValues.Create(
        "\0\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\v\f\r\u000e\u000f"
        + "\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\u007f"
        + "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f"
        + "\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f");

    private readonly StringBuilder _waiting = new();

    // Behind a column whose text filled it: what follows on the line is parted from it by a blank.
    private bool _isFull;

    public TextOutput Write(string text, Ink ink = Ink.Plain)
    {
        if (_isFull && text.Length > 0)
        {
            _waiting.Append(' ');
            _isFull = false;
        }

        string? start = colour ? StartOf(ink) : null;
        _waiting.Append(start).Append(Clean(text)).Append(start is null ? null : "\e[0m");
        return this;
    }

    /// <summary>Writes text and blanks up to a width; a text that is longer is not cut.</summary>
    public TextOutput Column(string text, int width, Ink ink = Ink.Plain)
    {
        Write(text, ink);
        _waiting.Append(' ', Math.Max(0, width - text.Length));
        _isFull = text.Length >= width && text.Length > 0;
        return this;
    }

    public void Line(string text = "", Ink ink = Ink.Plain)
    {
        if (text.Length > 0)
        {
            Write(text, ink);
        }

        _waiting.Append('\n');
        _isFull = false;
        if (_waiting.Length >= FlushAt)
        {
            Flush();
        }
    }

    /// <summary>Writes lines that are the tool's own from the first to the last character.</summary>
    public void Block(string lines) => _waiting.Append(lines.TrimEnd()).Append('\n');

    public void Flush()
    {
        if (_waiting.Length > 0)
        {
            string text = _waiting.ToString();
            _waiting.Clear(); // before writing: where that fails, it must not be tried again
            stream.Write(System.Text.Encoding.UTF8.GetBytes(text));
        }

        stream.Flush();
    }

    /// <summary>The text with a question mark in place of each control character.</summary>
    public static string Clean(string text) => !text.AsSpan().ContainsAny(s_controls)
        ? text
        : string.Create(text.Length, text, static (cleaned, dirty) =>
        {
            dirty.CopyTo(cleaned);
            cleaned.ReplaceAny(s_controls, '?');
        });

    private static string? StartOf(Ink ink) => ink switch
    {
        Ink.Strong => "\e[1m",
        Ink.Faint => "\e[2m",
        Ink.Good => "\e[32m",
        Ink.Notice => "\e[36m",
        Ink.Warning => "\e[33m",
        Ink.Bad => "\e[31m",
        _ => null,
    };
}
