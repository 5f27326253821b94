using FsCheck;
using FsCheck.Fluent;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Properties;

/// <summary>
/// Runs a property with new cases in each run. A failure names the seed that gives them again, the case found and the smallest one it
/// could be cut down to.
/// </summary>
internal static class PropertyCheck
{
    public static void Holds<T>(Arbitrary<T> cases, int count, Action<T> property)
    {
        Config config = Config.QuickThrowOnFailure
            .WithMaxTest(count)
            .WithEndSize(40)
            .WithQuietOnSuccess(true)
            .WithReplay(new Replay(new Rnd((uint)TestSeed.Value), Microsoft.FSharp.Core.FSharpOption<int>.None));
        Check.One(TestSeed.Name, config, Prop.ForAll(cases, property));
    }
}
