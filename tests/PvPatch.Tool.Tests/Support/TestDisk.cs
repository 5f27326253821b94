using PvPatch.Tool.Files;

namespace PvPatch.Tool.Tests.Support;

/// <summary>A disk that takes down what is asked of it, and fails at a step of choice as a full or broken one does.</summary>
internal sealed class TestDisk : OutputDisk
{
    private readonly Dictionary<string, int> _counts = [];

    /// <summary>The step that fails, as <c>rename 2</c> for the second rename.</summary>
    public string? Fails { get; init; }

    public bool HasLinks { get; init; } = true;

    /// <summary>Called before bytes are written.</summary>
    public Action? BeforeWrite { get; init; }

    public List<string> Steps { get; } = [];

    public override void Write(FileStream file, ReadOnlySpan<byte> bytes)
    {
        BeforeWrite?.Invoke();
        base.Write(file, bytes[..(bytes.Length / 2)]); // a full disk takes some of it
        Step("write");
        base.Write(file, bytes[(bytes.Length / 2)..]);
    }

    public override void Flush(FileStream file)
    {
        Step("flush");
        base.Flush(file);
    }

    public override void Rename(string from, string to)
    {
        Step("rename");
        base.Rename(from, to);
    }

    public override void FlushFolder(string folder)
    {
        Step("folder");
        base.FlushFolder(folder);
    }

    public override bool TryLink(string existing, string second) => HasLinks && base.TryLink(existing, second);

    private void Step(string name)
    {
        int count = _counts[name] = _counts.GetValueOrDefault(name) + 1;
        Steps.Add(name);
        if (Fails == $"{name} {count}")
        {
            throw new IOException("No space left on device");
        }
    }
}
