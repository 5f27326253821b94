using PvPatch.Architecture.Tests.Planted.Upper;

namespace PvPatch.Architecture.Tests.Planted.Lower;

// Each of these uses the upper layer in one way only. None of it is ever run.

internal sealed class InABody
{
    public static int Run() => Thing.Value;
}

internal sealed class InALambda
{
    public static Func<int> Run() => static () => Thing.Value;
}

internal sealed class InAnIterator
{
    public static IEnumerable<int> Run()
    {
        yield return Thing.Value;
    }
}

internal sealed class InAnAsyncMethod
{
    public static async Task<int> Run()
    {
        await Task.Yield();
        return Thing.Value;
    }
}

internal sealed class AsAGenericArgument
{
    public static int Run() => new List<Named>().Count;
}

internal sealed class AsAGenericArgumentOfAMethod
{
    public static object[] Run() => [.. Array.Empty<object>().OfType<Named>()];
}

internal sealed class AsAToken
{
    public static string Run() => typeof(Named).Name;
}

internal sealed class AsAProperty
{
    public Named? Used { get; set; }
}

internal sealed class AsAParameter
{
    public static void Run(Named[]? used) => GC.KeepAlive(used);
}

[Mark]
internal sealed class AsAnAttribute;

internal sealed class InANestedType
{
    private sealed class Nested
    {
        public static int Run() => Thing.Value;
    }
}

internal sealed class Innocent
{
    public static int Run() => new List<int>().Count;
}
