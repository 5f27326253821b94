namespace PvPatch.KernelTests.Harness;

/// <summary>The end of a long text, for error messages.</summary>
internal static class TextTail
{
    public static string Of(string text, int lines)
    {
        string[] all = text.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        return string.Join('\n', all.TakeLast(lines));
    }
}
