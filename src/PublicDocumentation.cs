using System;
using System.Collections.Generic;
using System.Linq;
using System.Xml.Linq;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;
using Mono.Cecil;
using Mono.Cecil.Rocks;

/// <summary>
/// Takes out of a documentation file the members that are not public or protected. Compiled by MSBuild: PublicDocumentation.targets.
/// </summary>
public sealed class KeepPublicDocumentation : Task
{
    /// <summary>The compiled assembly.</summary>
    [Required]
    public string Assembly { get; set; }

    /// <summary>The documentation file the compiler wrote beside it; written anew.</summary>
    [Required]
    public string Documentation { get; set; }

    /// <summary>The libraries this task uses, the lowest first.</summary>
    [Required]
    public string[] Libraries { get; set; }

    public override bool Execute()
    {
        // By hand, because MSBuild would load each again for every library that asks for it, and their types would not fit together.
        foreach (string library in Libraries)
        {
            System.Reflection.Assembly.LoadFrom(library);
        }

        PublicDocumentation.Keep(Assembly, Documentation);
        return true;
    }
}

internal static class PublicDocumentation
{
    public static void Keep(string assemblyFile, string documentation)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        using (AssemblyDefinition assembly = AssemblyDefinition.ReadAssembly(assemblyFile))
        {
            foreach (TypeDefinition type in assembly.MainModule.GetAllTypes().Where(IsSeen))
            {
                seen.UnionWith(SeenMembers(type).Select(DocCommentId.GetDocCommentId));
            }
        }

        XDocument file = XDocument.Load(documentation, LoadOptions.PreserveWhitespace);
        XElement[] hidden = file.Descendants("member").Where(m => !seen.Contains((string)m.Attribute("name"))).ToArray();
        foreach (XElement member in hidden)
        {
            if (member.PreviousNode is XText indent)
            {
                indent.Remove();
            }

            member.Remove();
        }

        file.Save(documentation, SaveOptions.DisableFormatting);
    }

    private static IEnumerable<IMemberDefinition> SeenMembers(TypeDefinition type)
    {
        yield return type;
        foreach (FieldDefinition field in type.Fields.Where(f => f.IsPublic || f.IsFamily || f.IsFamilyOrAssembly))
        {
            yield return field;
        }

        foreach (MethodDefinition method in type.Methods.Where(IsSeen))
        {
            yield return method;
        }

        foreach (PropertyDefinition property in type.Properties.Where(p => IsSeen(p.GetMethod) || IsSeen(p.SetMethod)))
        {
            yield return property;
        }

        foreach (EventDefinition one in type.Events.Where(e => IsSeen(e.AddMethod)))
        {
            yield return one;
        }
    }

    private static bool IsSeen(MethodDefinition method) =>
        method != null && (method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly);

    private static bool IsSeen(TypeDefinition type) =>
        type.IsPublic || ((type.IsNestedPublic || type.IsNestedFamily || type.IsNestedFamilyOrAssembly) && IsSeen(type.DeclaringType));
}
