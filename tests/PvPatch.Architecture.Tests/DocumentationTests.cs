using System.Reflection;
using System.Text.RegularExpressions;
using PvPatch.Tests.Support;

namespace PvPatch.Architecture.Tests;

/// <summary>What the documentation says of the code is held against the code.</summary>
public sealed partial class DocumentationTests
{
    [Fact]
    public void Every_code_is_on_the_page_of_diagnostics_with_its_constant()
    {
        string page = File.ReadAllText(Repository.Path("docs", "diagnostics.md"));
        foreach (FieldInfo field in typeof(DiagnosticCodes).GetFields(BindingFlags.Public | BindingFlags.Static))
        {
            Assert.Contains($"| {field.GetRawConstantValue()} | `{field.Name}` |", page, StringComparison.Ordinal);
        }

        // The constants of the other assemblies, by their source.
        foreach (string source in (string[])["src/PvPatch.Linux/KernelDiagnosticCodes.cs", "src/PvPatch.Tool/ToolDiagnosticCodes.cs"])
        {
            MatchCollection constants = Constant().Matches(File.ReadAllText(Repository.Path(source)));
            Assert.NotEmpty(constants);
            foreach (Match constant in constants)
            {
                Assert.Contains($"| {constant.Groups[2].Value} | `{constant.Groups[1].Value}` |", page, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void No_code_is_used_twice()
    {
        string page = File.ReadAllText(Repository.Path("docs", "diagnostics.md"));
        string[] codes = [.. Row().Matches(page).Select(static m => m.Groups[1].Value)];
        Assert.Equal(codes.Distinct().Order(), codes.Order());
    }

    [Fact]
    public void The_readme_shows_the_sample_that_is_compiled()
    {
        string readme = File.ReadAllText(Repository.Path("README.md")).ReplaceLineEndings("\n");
        string sample = File.ReadAllText(Repository.Path("docs", "samples", "Quickstart", "Program.cs")).ReplaceLineEndings("\n");
        Assert.Contains($"```csharp\n{sample}```", readme, StringComparison.Ordinal);
        Assert.True(sample.Split('\n').Length <= 20, "the sample has grown too long to be read at a glance");
    }

    [Fact]
    public void Links_between_pages_lead_somewhere()
    {
        foreach (string page in Directory.EnumerateFiles(Repository.Path("docs"), "*.md").Append(Repository.Path("README.md")))
        {
            foreach (Match link in Link().Matches(File.ReadAllText(page)))
            {
                string target = link.Groups[1].Value;
                if (!target.Contains("://", StringComparison.Ordinal))
                {
                    Assert.True(File.Exists(Path.Combine(Path.GetDirectoryName(page)!, target)), $"{page}: {target}");
                }
            }
        }
    }

    [GeneratedRegex("""const string (\w+) = "(PV\d{4})";""")]
    private static partial Regex Constant();

    [GeneratedRegex(@"^\| (PV\d{4}) \|", RegexOptions.Multiline)]
    private static partial Regex Row();

    [GeneratedRegex(@"\]\(([^)#]+?)(?:#[^)]*)?\)")]
    private static partial Regex Link();
}
