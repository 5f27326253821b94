using System.Reflection;
using System.Xml.Linq;

namespace PvPatch.Architecture.Tests;

/// <summary>
/// What reports bad input comes in two forms: <c>TryX</c>, which gives the diagnostics, and <c>X</c>, which throws the first of them.
/// </summary>
public sealed class TwinTests
{
    private const BindingFlags Public = BindingFlags.Public | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly;
    private const string Try = "Try";

    public static TheoryData<string> All => ["PvPatch", "PvPatch.Linux", "PvPatch.Tool"];

    public static TheoryData<string> Documented => ["PvPatch", "PvPatch.Linux"];

    [Theory]
    [MemberData(nameof(All))]
    public void Every_Try_that_says_what_is_wrong_has_a_twin_that_throws(string assembly) =>
        Assert.Empty(Tries(assembly).Where(static m => ErrorOf(m) is not null && Twin(m) is null).Select(Name));

    [Theory]
    [MemberData(nameof(Documented))]
    public void Everything_that_throws_of_bad_input_has_a_Try_that_says_why(string assembly)
    {
        // Of the engine what reads, plans and writes: what is built or asked of live code by the host's own calls fails for the host's own
        // mistakes.
        string[] verbs = ["Read", "Parse", "Plan", "Apply", "Revert", "CheckAgainst", "Switch", "Bind", "Reserve"];
        string[] throwing = [.. Throwing(assembly).Where(m => assembly != "PvPatch" || verbs.Contains(m[(m.LastIndexOf('.') + 1)..]))];
        Assert.NotEmpty(throwing);
        HashSet<string> tries = [.. Tries(assembly).Select(Name)];
        string[] alone = [.. throwing.Where(m => !tries.Contains(WithTry(m)))];
        Assert.Empty(alone);
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Of_one_family_errors_have_one_shape(string assembly)
    {
        foreach (IGrouping<string, MethodInfo> family in Tries(assembly).GroupBy(Name))
        {
            Assert.True(family.Select(ErrorOf).Distinct().Count() == 1, family.Key);
        }
    }

    private static IEnumerable<MethodInfo> Tries(string assembly) => Assembly.Load(assembly).GetExportedTypes()
        .SelectMany(static t => t.GetMethods(Public))
        .Where(static m => m.Name.StartsWith(Try, StringComparison.Ordinal) && m.ReturnType == typeof(bool));

    /// <summary>The type of what says what is wrong: a diagnostic, several, or a result that holds them.</summary>
    private static Type? ErrorOf(MethodInfo method) => method.GetParameters()
        .Where(static p => p.IsOut)
        .Select(static p => p.ParameterType.GetElementType()!)
        .FirstOrDefault(static t => t == typeof(PatchDiagnostic) || t == typeof(IReadOnlyList<PatchDiagnostic>)
            || t.GetProperty("Diagnostics") is not null && t.Name.EndsWith("Result", StringComparison.Ordinal));

    /// <summary>
    /// The method of the same name without Try and with the same input; of what looks something up, it may be an indexer.
    /// </summary>
    private static MethodInfo? Twin(MethodInfo method) => method.DeclaringType!.GetMethods(Public).FirstOrDefault(m =>
        (m.Name == method.Name[Try.Length..] || (m.Name == "get_Item" && method.Name.StartsWith("TryGet", StringComparison.Ordinal)))
            && m.IsStatic == method.IsStatic && Inputs(m).Order().SequenceEqual(Inputs(method).Order()));

    private static IEnumerable<string> Inputs(MethodInfo method) =>
        method.GetParameters().Where(static p => !p.IsOut).Select(static p => p.ParameterType.ToString());

    private static string Name(MethodInfo method) => $"{method.DeclaringType!.FullName}.{method.Name}";

    private static string WithTry(string member)
    {
        int dot = member.LastIndexOf('.');
        return $"{member[..(dot + 1)]}{Try}{member[(dot + 1)..]}";
    }

    /// <summary>Methods whose documentation says that they throw the exception that carries a diagnostic.</summary>
    private static IEnumerable<string> Throwing(string assembly) =>
        XDocument.Load(Path.Combine(AppContext.BaseDirectory, assembly + ".xml")).Descendants("member")
        .Where(static m => m.Elements("exception").Any(static e => (string?)e.Attribute("cref") == "T:PvPatch.PatchException"))
        .Select(static m => (string)m.Attribute("name")!)
        .Where(static m => m[0] == 'M')
        .Select(static m => m[2..].Split('(', '`')[0])
        .Distinct();
}
