namespace PvPatch.Tests.Shared;

/// <summary>The <c>dotnet</c> that belongs to the runtime of this test, in PATH or not.</summary>
internal static class DotnetHost
{
    public static string Path { get; } =
        System.IO.Path.GetFullPath(
            System.IO.Path.Combine(System.IO.Path.GetDirectoryName(typeof(object).Assembly.Location)!, "../../../dotnet"));
}
