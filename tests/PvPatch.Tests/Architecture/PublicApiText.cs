using System.Globalization;
using System.Reflection;
using System.Text;

namespace PvPatch.Tests.Layering;

/// <summary>The public surface of an assembly as text, one member a line, sorted: what a change of it must show up in.</summary>
internal static class PublicApiText
{
    private const BindingFlags Declared = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly;

    private static readonly Dictionary<Type, string> s_keywords = new()
    {
        [typeof(void)] = "void",
        [typeof(bool)] = "bool",
        [typeof(byte)] = "byte",
        [typeof(sbyte)] = "sbyte",
        [typeof(short)] = "short",
        [typeof(ushort)] = "ushort",
        [typeof(int)] = "int",
        [typeof(uint)] = "uint",
        [typeof(long)] = "long",
        [typeof(ulong)] = "ulong",
        [typeof(char)] = "char",
        [typeof(string)] = "string",
        [typeof(object)] = "object",
        [typeof(double)] = "double",
        [typeof(float)] = "float",
    };

    public static string Of(Assembly assembly)
    {
        var text = new StringBuilder();
        foreach (Type type in assembly.GetExportedTypes().OrderBy(t => t.FullName, StringComparer.Ordinal))
        {
            text.Append(Header(type)).Append('\n');
            foreach (string member in Members(type).Order(StringComparer.Ordinal))
            {
                text.Append("    ").Append(member).Append('\n');
            }

            text.Append('\n');
        }

        return text.ToString();
    }

    private static string Header(Type type)
    {
        string kind = type.IsEnum ? "enum"
            : typeof(Delegate).IsAssignableFrom(type) ? "delegate"
            : type.IsInterface ? "interface"
            : type.IsValueType ? (type.IsDefined(typeof(System.Runtime.CompilerServices.IsReadOnlyAttribute), false) ? "readonly struct" : "struct")
            : type.IsAbstract && type.IsSealed ? "static class"
            : type.IsAbstract ? "abstract class"
            : type.GetMethod("<Clone>$") is not null ? (type.IsSealed ? "sealed record" : "record")
            : type.IsSealed ? "sealed class"
            : "class";
        string[] bases =
        [
            .. type.IsEnum ? [Name(Enum.GetUnderlyingType(type))] : Array.Empty<string>(),
            .. type.BaseType is Type b && b != typeof(object) && b != typeof(ValueType) && b != typeof(Enum) ? [Name(b)] : Array.Empty<string>(),
            .. type.IsEnum ? Array.Empty<string>() : type.GetInterfaces().Where(i => i.IsVisible).Select(Name).Order(StringComparer.Ordinal).ToArray(),
        ];
        return $"{type.Namespace}: {kind} {NestedName(type)}{(bases.Length == 0 ? "" : " : " + string.Join(", ", bases))}";
    }

    private static IEnumerable<string> Members(Type type)
    {
        foreach (FieldInfo field in type.GetFields(Declared).Where(f => (f.IsPublic || f.IsFamily) && !f.IsSpecialName))
        {
            string value = field.IsLiteral ? $" = {Literal(field.GetRawConstantValue())}" : "";
            yield return $"{(field.IsLiteral ? "const " : field.IsStatic ? "static " : "")}{(field.IsInitOnly ? "readonly " : "")}{Name(field.FieldType)} {field.Name}{value}";
        }

        foreach (PropertyInfo property in type.GetProperties(Declared))
        {
            string accessors = string.Concat(Accessor(property.GetMethod, "get; "), Accessor(property.SetMethod, IsInit(property) ? "init; " : "set; "));
            if (accessors.Length > 0)
            {
                bool required = property.IsDefined(typeof(System.Runtime.CompilerServices.RequiredMemberAttribute), false);
                string index = property.GetIndexParameters() is { Length: > 0 } parameters ? $"[{Parameters(parameters)}]" : "";
                bool isStatic = (property.GetMethod ?? property.SetMethod)!.IsStatic;
                string mark = Mark(property.PropertyType, c => c.Create(property).ReadState);
                yield return $"{(isStatic ? "static " : "")}{(required ? "required " : "")}{Name(property.PropertyType)}{mark} {property.Name}{index} {{ {accessors}}}";
            }
        }

        foreach (EventInfo one in type.GetEvents(Declared).Where(e => IsSeen(e.AddMethod)))
        {
            yield return $"event {Name(one.EventHandlerType!)} {one.Name}";
        }

        foreach (ConstructorInfo constructor in type.GetConstructors(Declared).Where(c => IsSeen(c) && !c.IsStatic))
        {
            yield return $"{type.Name}({Parameters(constructor.GetParameters())})";
        }

        foreach (MethodInfo method in type.GetMethods(Declared).Where(m => IsSeen(m) && !IsAccessor(m) && !IsWrittenByCompiler(m)))
        {
            string generic = method.IsGenericMethod ? $"<{string.Join(", ", method.GetGenericArguments().Select(Name))}>" : "";
            string kind = method.IsStatic ? "static " : method.IsAbstract ? "abstract " : method.IsVirtual && !method.IsFinal && !type.IsSealed ? "virtual " : "";
            string mark = Mark(method.ReturnType, c => c.Create(method.ReturnParameter).ReadState);
            yield return $"{kind}{Name(method.ReturnType)}{mark} {method.Name}{generic}({Parameters(method.GetParameters())})";
        }
    }

    private static bool IsSeen(MethodBase? method) => method is not null && (method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly);

    private static bool IsAccessor(MethodInfo method) => method.IsSpecialName && !method.Name.StartsWith("op_", StringComparison.Ordinal);

    /// <summary>What every record has: its equality, its text, its copy.</summary>
    private static bool IsWrittenByCompiler(MethodInfo method) => method.IsDefined(typeof(System.Runtime.CompilerServices.CompilerGeneratedAttribute), false);

    private static string Accessor(MethodInfo? method, string text) => IsSeen(method) ? text : "";

    private static bool IsInit(PropertyInfo property) =>
        property.SetMethod?.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(System.Runtime.CompilerServices.IsExternalInit)) == true;

    private static string Parameters(ParameterInfo[] parameters) => string.Join(", ", parameters.Select(p =>
    {
        string way = p.IsOut ? "out " : p.IsIn ? "in " : p.ParameterType.IsByRef ? "ref " : "";
        string value = p.HasDefaultValue ? $" = {Literal(p.RawDefaultValue)}" : "";
        string mark = Mark(p.ParameterType, c => p.IsOut ? c.Create(p).ReadState : c.Create(p).WriteState);
        return $"{way}{Name(p.ParameterType)}{mark} {p.Name}{value}";
    }));

    /// <summary>The question mark of a reference type that may be null.</summary>
    private static string Mark(Type type, Func<NullabilityInfoContext, NullabilityState> state)
    {
        bool reference = !(type.IsByRef ? type.GetElementType()! : type).IsValueType;
        return reference && state(new NullabilityInfoContext()) == NullabilityState.Nullable ? "?" : "";
    }

    private static string Literal(object? value) => value switch
    {
        null => "null",
        string text => $"\"{text}\"",
        bool flag => flag ? "true" : "false",
        _ => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "",
    };

    private static string NestedName(Type type) => type.DeclaringType is Type outer ? $"{NestedName(outer)}.{Name(type)}" : Name(type);

    private static string Name(Type type)
    {
        if (type.IsByRef)
        {
            return Name(type.GetElementType()!);
        }

        if (type.IsArray)
        {
            return Name(type.GetElementType()!) + "[]";
        }

        if (Nullable.GetUnderlyingType(type) is Type inner)
        {
            return Name(inner) + "?";
        }

        if (s_keywords.TryGetValue(type, out string? keyword))
        {
            return keyword;
        }

        if (!type.IsGenericType)
        {
            return type.Name;
        }

        string name = type.Name.Split('`')[0];
        Type[] arguments = type.GetGenericArguments();
        return name is "ValueTuple" ? $"({string.Join(", ", arguments.Select(Name))})" : $"{name}<{string.Join(", ", arguments.Select(Name))}>";
    }
}
