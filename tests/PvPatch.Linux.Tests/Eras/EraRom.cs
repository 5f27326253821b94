using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>A VMI ROM that answers as told.</summary>
internal static class EraRom
{
    public static VmiOptions Answering(params (VmiCall Call, VmiRelocationKind Kind, ulong Target)[] answers) => new()
    {
        GetRelocation = call => Array.Find(answers, a => a.Call == call) is { Kind: not VmiRelocationKind.None } answer
            ? new VmiRelocation(answer.Kind, answer.Target)
            : default,
    };
}
