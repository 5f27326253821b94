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
}
