using System.Text.Json;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary><c>info</c> counts the sites of everything that rewrites a kernel's text.</summary>
public sealed class InfoMechanismTests : IDisposable
{
    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Every_mechanism_is_listed_with_its_sites()
    {
        JsonElement info = ToolRunner.Run("info", _files.Vmlinux, "--json").Succeeds().Json;

        Dictionary<string, int> mechanisms = info.GetProperty("mechanisms").EnumerateArray()
            .ToDictionary(static m => m.GetProperty("name").GetString()!, static m => m.GetProperty("sites").GetInt32());
        Assert.Equal(info.GetProperty("sites").GetInt32(), mechanisms["paravirt"]);
        Assert.True(mechanisms["alternative"] > 0);
        Assert.Equal(0, mechanisms["jump-label"]); // the kernel of these tests has none
    }
}
