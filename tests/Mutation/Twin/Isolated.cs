using System.Runtime.CompilerServices;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>Stands for the one that runs a test in a child process: no mutant is switched on there, so nothing is run.</summary>
internal static class Isolated
{
    public static void Run(Type type, Action body, string row = "", int seconds = 120, [CallerMemberName] string name = "") =>
        _ = (type, body, row, seconds, name);
}
