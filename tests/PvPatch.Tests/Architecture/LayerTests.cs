using System.Reflection;
using System.Reflection.Emit;

namespace PvPatch.Tests.Layering;

/// <summary>
/// The layers point one way. Read from the compiled assembly: what the types of a namespace name in fields, signatures, base types and
/// method bodies.
/// </summary>
public sealed class LayerTests
{
    private static readonly Dictionary<short, OpCode> s_opCodes = typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Select(f => (OpCode)f.GetValue(null)!)
        .ToDictionary(o => o.Value);

    private static readonly Lazy<Dictionary<(string From, string To), string>> s_uses = new(() => FindUses(typeof(PatchDiagnostic).Assembly));

    [Theory]
    [InlineData("Plans", "Ops", "Encoding", "Planning", "Backends", "Live")]
    [InlineData("Sites", "Ops", "Images", "Encoding", "Plans", "Planning", "Backends", "Live")]
    [InlineData("Images", "Ops", "Sites", "Encoding", "Plans", "Planning", "Backends", "Live")]
    [InlineData("Ops", "Images", "Encoding", "Plans", "Planning", "Backends", "Live")]
    [InlineData("Encoding", "Images", "Plans", "Planning", "Backends", "Live")]
    [InlineData("Planning", "Backends", "Live")]
    public void A_layer_knows_nothing_of_those_above_it(string layer, params string[] above)
    {
        Assert.Contains(typeof(PatchDiagnostic).Assembly.GetTypes(), t => Layer(t) == layer); // a renamed layer must not pass unseen
        string[] wrong = [.. s_uses.Value.Where(u => u.Key.From == layer && above.Contains(u.Key.To)).Select(u => u.Value)];
        Assert.True(wrong.Length == 0, string.Join(Environment.NewLine, wrong));
    }

    [Fact]
    public void The_root_namespace_knows_nothing_but_itself()
    {
        string[] wrong = [.. s_uses.Value.Where(u => u.Key.From.Length == 0).Select(u => u.Value)];
        Assert.True(wrong.Length == 0, string.Join(Environment.NewLine, wrong));
    }

    [Theory]
    [InlineData("Planning", "Plans")] // by a field
    [InlineData("Planning", "Encoding")]
    [InlineData("Encoding", "Ops")] // by a parameter
    [InlineData("Ops", "Sites")]
    public void Uses_that_are_there_are_found(string from, string to) => Assert.Contains((from, to), s_uses.Value.Keys);

    [Fact]
    public void A_use_in_a_method_body_alone_is_found()
    {
        Assert.Contains(typeof(Planning.PlanCases), UsesOf(typeof(BodyOnly)));
        Assert.Contains(typeof(System.Text.StringBuilder), UsesOf(typeof(BodyOnly)));
    }

    private static Dictionary<(string From, string To), string> FindUses(Assembly assembly)
    {
        var uses = new Dictionary<(string, string), string>();
        foreach (Type type in assembly.GetTypes())
        {
            if (Layer(type) is not string from)
            {
                continue;
            }

            foreach (Type used in UsesOf(type).Where(t => t.Assembly == assembly))
            {
                if (Layer(used) is string to && from != to && to.Length > 0)
                {
                    uses.TryAdd((from, to), $"{type} uses {used}");
                }
            }
        }

        return uses;
    }

    /// <summary>The namespace below PvPatch, without what is below that; nothing for types of the compiler and of other assemblies' namespaces.</summary>
    private static string? Layer(Type type)
    {
        while (type.DeclaringType is Type outer)
        {
            type = outer;
        }

        string? space = type.Namespace;
        return space == "PvPatch" ? "" : space?.StartsWith("PvPatch.", StringComparison.Ordinal) == true ? space.Split('.')[1] : null;
    }

    private static HashSet<Type> UsesOf(Type type)
    {
        const BindingFlags All = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Static | BindingFlags.Instance | BindingFlags.DeclaredOnly;
        var uses = new HashSet<Type>();
        Add(uses, type.BaseType);
        foreach (Type one in type.GetInterfaces())
        {
            Add(uses, one);
        }

        foreach (CustomAttributeData attribute in type.GetCustomAttributesData())
        {
            Add(uses, attribute.AttributeType);
        }

        foreach (FieldInfo field in type.GetFields(All))
        {
            Add(uses, field.FieldType);
        }

        foreach (MethodBase method in type.GetMethods(All).Concat<MethodBase>(type.GetConstructors(All)))
        {
            Add(uses, (method as MethodInfo)?.ReturnType);
            foreach (ParameterInfo parameter in method.GetParameters())
            {
                Add(uses, parameter.ParameterType);
            }

            AddBody(uses, method);
        }

        return uses;
    }

    private static void AddBody(HashSet<Type> uses, MethodBase method)
    {
        MethodBody? body = method.GetMethodBody();
        if (body?.GetILAsByteArray() is not byte[] il)
        {
            return;
        }

        foreach (LocalVariableInfo local in body.LocalVariables)
        {
            Add(uses, local.LocalType);
        }

        Type[] ofType = method.DeclaringType!.GetGenericArguments();
        Type[] ofMethod = method.IsGenericMethod ? method.GetGenericArguments() : [];
        for (int at = 0; at < il.Length;)
        {
            short code = il[at] == 0xfe ? unchecked((short)(0xfe00 | il[at + 1])) : il[at];
            at += il[at] == 0xfe ? 2 : 1;
            OpCode op = s_opCodes[code];
            switch (op.OperandType)
            {
                case OperandType.InlineField or OperandType.InlineMethod or OperandType.InlineTok or OperandType.InlineType:
                    MemberInfo member = method.Module.ResolveMember(BitConverter.ToInt32(il, at), ofType, ofMethod)!;
                    Add(uses, member as Type ?? member.DeclaringType);
                    Add(uses, (member as FieldInfo)?.FieldType);
                    Add(uses, (member as MethodInfo)?.ReturnType);
                    foreach (Type argument in member is MethodInfo { IsGenericMethod: true } generic ? generic.GetGenericArguments() : [])
                    {
                        Add(uses, argument);
                    }

                    at += 4;
                    break;
                case OperandType.InlineSwitch:
                    at += 4 + 4 * BitConverter.ToInt32(il, at);
                    break;
                default:
                    at += op.OperandType switch
                    {
                        OperandType.InlineNone => 0,
                        OperandType.ShortInlineBrTarget or OperandType.ShortInlineI or OperandType.ShortInlineVar => 1,
                        OperandType.InlineVar => 2,
                        OperandType.InlineI8 or OperandType.InlineR => 8,
                        _ => 4,
                    };
                    break;
            }
        }
    }

    private static void Add(HashSet<Type> uses, Type? type)
    {
        while (type?.HasElementType == true)
        {
            type = type.GetElementType();
        }

        if (type is null || type.IsGenericParameter)
        {
            return;
        }

        uses.Add(type.IsGenericType ? type.GetGenericTypeDefinition() : type);
        foreach (Type argument in type.IsGenericType ? type.GetGenericArguments() : [])
        {
            Add(uses, argument);
        }
    }

    private static class BodyOnly
    {
        public static int Run() => new Planning.PlanCases(1).Bitness + new System.Text.StringBuilder().Length;
    }
}
