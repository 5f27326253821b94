using System.Reflection;
using System.Text.RegularExpressions;
using NetArchTest.Rules;

namespace PvPatch.Architecture.Tests;

/// <summary>A layer: one namespace or several that know each other, with all below them that no other layer has.</summary>
/// <param name="Namespaces">The namespaces, divided by blanks: also the layer's name.</param>
/// <param name="MayUse">Names of the layers it may use besides itself.</param>
internal sealed record Layer(string Namespaces, params string[] MayUse)
{
    /// <summary>Length of the namespace by which the layer claims a type of some namespace; 0 where it does not.</summary>
    public int Claim(string name) => Namespaces.Split(' ')
        .Where(n => name == n || name.StartsWith(n + ".", StringComparison.Ordinal))
        .Select(static n => n.Length)
        .DefaultIfEmpty()
        .Max();
}

/// <summary>The layers of one assembly. A type belongs to the layer that claims it by the longest namespace.</summary>
internal sealed class Layers(Assembly assembly, params Layer[] all)
{
    /// <summary>The layers, lowest first.</summary>
    public IReadOnlyList<Layer> All => all;

    /// <summary>Namespaces of the layers that no type is in: renamed or gone, so that their rule would hold of nothing.</summary>
    public IEnumerable<string> Empty() => all.SelectMany(static l => l.Namespaces.Split(' ')).Where(n =>
        !Named().Any(t => t.Namespace == n || t.Namespace!.StartsWith(n + ".", StringComparison.Ordinal)));

    /// <summary>Types of the assembly that no layer claims: a new namespace, of which no rule speaks.</summary>
    public IEnumerable<string> Unclaimed() => Named().Where(t => LayerOf(t) is null).Select(static t => t.FullName!);

    /// <summary>Types of a layer that use one of a layer they may not use, each with what it uses.</summary>
    public IReadOnlyList<string> Violations(Layer layer)
    {
        string[] forbidden = [.. all.Where(l => l != layer && !layer.MayUse.Contains(l.Namespaces)).SelectMany(NamesIn)];
        if (forbidden.Length == 0)
        {
            return [];
        }

        // To the library the namespace of a nested type is the type around it.
        string within = string.Join('|', Named().Where(t => LayerOf(t) == layer)
            .SelectMany(static t => (string[])[t.Namespace!, t.FullName!]).Distinct().Select(Regex.Escape));
        NetArchTest.Rules.TestResult result = Types.InAssembly(assembly)
            .That().ResideInNamespaceMatching($"^({within})([/+].*)?$")
            .ShouldNot().HaveDependencyOnAny(forbidden)
            .GetResult();
        return [.. result.FailingTypes.Select(static t => $"{t.FullName}: {t.Explanation}")];
    }

    /// <summary>Names in a source file, with their namespace, of layers that the file's own may not use.</summary>
    public IEnumerable<string> ViolationsInSource(string source)
    {
        Match own = Regex.Match(source, @"^namespace ([\w.]+);", RegexOptions.Multiline);
        Layer? layer = own.Success ? LayerOf(own.Groups[1].Value) : null;
        return layer is null ? []
            : Regex.Matches(source, @"\bPvPatch(\.\w+)+").Select(static m => m.Value).Where(
                name => LayerOf(name) is Layer used && used != layer && !layer.MayUse.Contains(used.Namespaces));
    }

    private string[] NamesIn(Layer layer) => [.. Named().Where(t => LayerOf(t) == layer).Select(static t => t.FullName!)];

    private Layer? LayerOf(Type type) => LayerOf(type.Namespace!);

    private Layer? LayerOf(string name) => all.Where(l => l.Claim(name) > 0).MaxBy(l => l.Claim(name));

    /// <summary>Types in a namespace of ours that are in no other type.</summary>
    private IEnumerable<Type> Named() => assembly.GetTypes().Where(static t =>
        t.DeclaringType is null && t.Namespace?.StartsWith("PvPatch", StringComparison.Ordinal) == true);
}
