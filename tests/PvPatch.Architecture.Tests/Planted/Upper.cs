namespace PvPatch.Architecture.Tests.Planted.Upper;

/// <summary>What the types of the lower layer use and may not.</summary>
public static class Thing
{
    public const int Constant = 1;

    public static int Value => 1;

    public static T? Make<T>() => default;
}

/// <summary>A type that is only named.</summary>
public sealed class Named;

/// <summary>An attribute.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class MarkAttribute : Attribute;

/// <summary>Uses the lower layer, which it may.</summary>
public sealed class UsesDown
{
    public static int Run() => Lower.Innocent.Run();
}
