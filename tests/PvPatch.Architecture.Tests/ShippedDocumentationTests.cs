using System.Reflection;
using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace PvPatch.Architecture.Tests;

/// <summary>
/// The documentation files beside the assemblies, which the packages hold, speak of public and protected members only, and of all that have
/// a comment.
/// </summary>
public sealed partial class ShippedDocumentationTests
{
    private const BindingFlags Declared =
        BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly;

    public static TheoryData<string> Libraries => ["PvPatch", "PvPatch.Linux"];

    [Theory]
    [MemberData(nameof(Libraries))]
    public void Members_are_public(string library)
    {
        // By name and number of parameters, as the identifiers are not made here a second time.
        HashSet<string> seen = [.. Assembly.Load(library).GetExportedTypes().SelectMany(SeenNames)];
        string[] members = DocumentedMembers(library);
        Assert.NotEmpty(members);
        Assert.DoesNotContain(members, m => !seen.Contains(Shorten(m)));
    }

    [Theory]
    [MemberData(nameof(Libraries))]
    public void No_public_type_or_field_or_property_is_missing(string library)
    {
        // The compiler demands a comment on each (CS1591); what is gone was taken out by mistake. Records' own members have none.
        string[] written = [
            .. Assembly.Load(library).GetExportedTypes().SelectMany(SeenNames).Where(static n => n[0] is 'T' or 'F' or 'P')];
        HashSet<string> documented = [.. DocumentedMembers(library).Select(Shorten)];
        string[] missing = [.. written.Where(m => !documented.Contains(m) && !FromParameterOrCompiler(m))];
        Assert.Empty(missing);

        // A positional record's property is told of by its parameter, on the type.
        bool FromParameterOrCompiler(string member) => member[0] == 'P' && Assembly.Load(library).GetExportedTypes().Any(t =>
            t.GetConstructors().Any(c => c.GetParameters().Any(p => $"P:{Id(t)}.{p.Name}" == member)));
    }

    [Fact]
    public void Comments_of_methods_are_kept()
    {
        string[] members = DocumentedMembers("PvPatch");
        Assert.Contains("M:PvPatch.Mechanisms.OpsRegistry.Add(PvPatch.Mechanisms.Backend)", members);
        Assert.Contains(members, static m => m.StartsWith("M:PvPatch.Plans.PatchPlan.TryApply(", StringComparison.Ordinal));
        Assert.Contains(members, static m => m.Contains(".#ctor(", StringComparison.Ordinal));
        Assert.Contains(members, static m => m.Contains(".op_", StringComparison.Ordinal));
    }

    private static string[] DocumentedMembers(string library) =>
        [.. XDocument.Load(Path.Combine(AppContext.BaseDirectory, library + ".xml")).Descendants("member")
            .Select(static m => (string)m.Attribute("name")!)];

    private static IEnumerable<string> SeenNames(Type type)
    {
        string name = Id(type);
        yield return $"T:{name}";
        foreach (FieldInfo field in type.GetFields(Declared)
            .Where(static f => (f.IsPublic || f.IsFamily || f.IsFamilyOrAssembly) && !f.IsSpecialName))
        {
            yield return $"F:{name}.{field.Name}";
        }

        foreach (MethodBase method in type.GetMethods(Declared).Concat<MethodBase>(type.GetConstructors(Declared)).Where(IsSeen))
        {
            string generic = method.IsGenericMethod ? $"``{method.GetGenericArguments().Length}" : "";
            yield return $"M:{name}.{method.Name.Replace('.', '#')}{generic}/{method.GetParameters().Length}";
        }

        foreach (PropertyInfo property in type.GetProperties(Declared).Where(static p => IsSeen(p.GetMethod) || IsSeen(p.SetMethod)))
        {
            int indexes = property.GetIndexParameters().Length;
            yield return $"P:{name}.{property.Name}{(indexes == 0 ? "" : $"/{indexes}")}";
        }

        foreach (EventInfo one in type.GetEvents(Declared).Where(static e => IsSeen(e.AddMethod)))
        {
            yield return $"E:{name}.{one.Name}";
        }
    }

    private static bool IsSeen(MethodBase? method) =>
        method is not null && (method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly);

    private static string Id(Type type) => type.FullName!.Replace('+', '.');

    /// <summary>An identifier with the number of its parameters in place of their types.</summary>
    private static string Shorten(string member)
    {
        int at = member.IndexOf('(', StringComparison.Ordinal);
        if (at < 0)
        {
            return member[0] == 'M' ? member + "/0" : member;
        }

        string parameters = member[(at + 1)..member.LastIndexOf(')')];
        for (string before = ""; before != parameters;)
        {
            before = parameters;
            parameters = Braces().Replace(parameters, ""); // commas between type arguments count nothing
        }

        return $"{member[..at]}/{parameters.Split(',').Length}";
    }

    [GeneratedRegex(@"\{[^{}]*\}|\[[^\[\]]*\]")]
    private static partial Regex Braces();
}
