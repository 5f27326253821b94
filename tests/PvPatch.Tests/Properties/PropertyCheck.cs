using FsCheck;
using FsCheck.Fluent;

namespace PvPatch.Tests.Properties;

/// <summary>
/// Runs a property with a fixed seed, so that every machine sees the same cases. A failure names the seed, the case found and the
/// smallest one it could be cut down to. PVPATCH_PROPERTY_SEED runs others.
/// </summary>
internal static class PropertyCheck
{
    private const ulong FixedSeed = 20061206;

    public static void Holds<T>(Arbitrary<T> cases, int count, Action<T> property)
    {
        ulong seed = ulong.TryParse(Environment.GetEnvironmentVariable("PVPATCH_PROPERTY_SEED"), out ulong given) ? given : FixedSeed;
        Config config = Config.QuickThrowOnFailure
            .WithMaxTest(count)
            .WithEndSize(40)
            .WithQuietOnSuccess(true)
            .WithReplay(new Replay(new Rnd(seed), Microsoft.FSharp.Core.FSharpOption<int>.None));
        Check.One($"seed {seed}", config, Prop.ForAll(cases, property));
    }
}
