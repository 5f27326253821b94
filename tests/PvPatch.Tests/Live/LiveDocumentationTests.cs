using PvPatch.Tests.Support;

namespace PvPatch.Tests.Live;

public sealed class LiveDocumentationTests
{
    [Fact]
    public void The_page_for_hosts_shows_the_sample_that_is_compiled()
    {
        string page = File.ReadAllText(Repository.Path("docs", "jit-hosts.md")).ReplaceLineEndings("\n");
        string sample = File.ReadAllText(Repository.Path("docs", "samples", "LiveSwitch", "Program.cs")).ReplaceLineEndings("\n");
        Assert.Contains($"```csharp\n{sample}```", page, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("static-keys.md", 3)]
    [InlineData("static-calls.md", 3)]
    [InlineData("constants.md", 3)]
    [InlineData("variants.md", 2)]
    public void What_the_pages_show_of_settings_is_in_the_sample_that_is_compiled(string name, int count)
    {
        string page = File.ReadAllText(Repository.Path("docs", name)).ReplaceLineEndings("\n");
        string sample = File.ReadAllText(Repository.Path("docs", "samples", "StaticKeys", "Program.cs")).ReplaceLineEndings("\n");
        string[] excerpts = [.. page.Split("```csharp\n").Skip(1).Select(static part => part[..part.IndexOf("```", StringComparison.Ordinal)])];
        Assert.Equal(count, excerpts.Length);
        Assert.All(excerpts, e => Assert.Contains(e, sample, StringComparison.Ordinal));
    }

    [Fact]
    public void What_the_page_shows_of_chaining_is_in_the_sample_that_is_compiled()
    {
        string page = File.ReadAllText(Repository.Path("docs", "jit-hosts.md")).ReplaceLineEndings("\n");
        string sample = File.ReadAllText(Repository.Path("docs", "samples", "Chaining", "Program.cs")).ReplaceLineEndings("\n");
        string excerpt = page[page.IndexOf("## Chaining blocks", StringComparison.Ordinal)..].Split("```")[1]["csharp\n".Length..];
        Assert.Contains("live.Link(", excerpt, StringComparison.Ordinal);
        Assert.Contains(excerpt, sample, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("entries.md", "# Whole implementations")]
    [InlineData("jit-hosts.md", "## What compiled C# can have")]
    public void What_pages_show_of_whole_implementations_is_in_the_sample_that_is_compiled(string file, string title)
    {
        string page = File.ReadAllText(Repository.Path("docs", file)).ReplaceLineEndings("\n");
        string sample = File.ReadAllText(Repository.Path("docs", "samples", "Entries", "Program.cs")).ReplaceLineEndings("\n");
        string[] excerpts = [.. page[page.IndexOf(title, StringComparison.Ordinal)..].Split("```csharp\n").Skip(1)
            .Select(static e => e[..e.IndexOf("```", StringComparison.Ordinal)])];
        Assert.NotEmpty(excerpts);
        Assert.All(excerpts, e => Assert.Contains(e, sample, StringComparison.Ordinal));
    }
}
