namespace PvPatch.KernelTests.Harness;

/// <summary>What a finished command left behind.</summary>
internal readonly record struct ToolResult(int ExitCode, string Output, string Error)
{
    public bool Succeeded => ExitCode == 0;

    /// <summary>The last lines it wrote, for an error message.</summary>
    public string Tail()
    {
        return TextTail.Of($"{Output}\n{Error}", 12);
    }
}
