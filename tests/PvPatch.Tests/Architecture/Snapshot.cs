namespace PvPatch.Tests.Layering;

/// <summary>A text compared with a file of the repository, which PVPATCH_UPDATE_SNAPSHOTS=1 writes anew.</summary>
internal static class Snapshot
{
    private const string Variable = "PVPATCH_UPDATE_SNAPSHOTS";

    public static void AssertMatches(string file, string actual)
    {
        string path = Path.Combine(FindRepository(), file);
        if (Environment.GetEnvironmentVariable(Variable) == "1")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllText(path, actual);
        }

        Assert.True(File.Exists(path), $"{file} is not there; {Variable}=1 writes it");
        string expected = File.ReadAllText(path).ReplaceLineEndings("\n");
        Assert.True(expected == actual, $"{file} differs ({Variable}=1 writes it anew):\n{Difference(expected, actual)}");
    }

    /// <summary>Lines taken away (-) and added (+), by the longest common subsequence.</summary>
    public static string Difference(string expected, string actual)
    {
        string[] a = expected.Split('\n');
        string[] b = actual.Split('\n');
        int[,] common = new int[a.Length + 1, b.Length + 1];
        for (int i = a.Length - 1; i >= 0; i--)
        {
            for (int j = b.Length - 1; j >= 0; j--)
            {
                common[i, j] = a[i] == b[j] ? common[i + 1, j + 1] + 1 : Math.Max(common[i + 1, j], common[i, j + 1]);
            }
        }

        var lines = new List<string>();
        for (int i = 0, j = 0; i < a.Length || j < b.Length;)
        {
            if (i < a.Length && j < b.Length && a[i] == b[j])
            {
                i++;
                j++;
            }
            else if (i < a.Length && (j == b.Length || common[i + 1, j] >= common[i, j + 1]))
            {
                lines.Add($"- {a[i++]}");
            }
            else
            {
                lines.Add($"+ {b[j++]}");
            }
        }

        return string.Join("\n", lines);
    }

    private static string FindRepository()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Directory.Packages.props")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new DirectoryNotFoundException("the tests do not run inside the repository");
    }
}
