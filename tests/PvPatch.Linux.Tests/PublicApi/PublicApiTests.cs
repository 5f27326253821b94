using PvPatch.Tests.Layering;

namespace PvPatch.Linux.Tests.PublicApi;

/// <summary>The public surface is as it was agreed on; PVPATCH_UPDATE_SNAPSHOTS=1 writes the file anew.</summary>
public sealed class PublicApiTests
{
    [Fact]
    public void The_public_surface_of_PvPatch_Linux_is_the_one_written_down() =>
        Snapshot.AssertMatches("tests/PvPatch.Linux.Tests/PublicApi/PvPatch.Linux.txt", PublicApiText.Of(System.Reflection.Assembly.Load("PvPatch.Linux")));
}
