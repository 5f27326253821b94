namespace PvPatch.Tests.Support;

/// <summary>Where the sources are: the folder above that has the solution in it.</summary>
internal static class Repository
{
    private static readonly string s_root = Find(AppContext.BaseDirectory);

    public static string Path(params ReadOnlySpan<string> parts) => System.IO.Path.Combine([s_root, .. parts]);

    private static string Find(string? folder)
    {
        while (folder is not null && !File.Exists(System.IO.Path.Combine(folder, "PvPatch.sln")))
        {
            folder = System.IO.Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("the tests do not run from within the repository");
    }
}
