using System.Globalization;
using Iced.Intel;

namespace PvPatch.Live;

/// <summary>
/// A condition that hardly ever changes, compiled into the code (the kernel's static key): its sites are nops or jumps, and become the
/// other when it is enabled or disabled. It is counted: on until it was disabled as often as enabled.
/// </summary>
/// <remarks>Sites are emitted by <see cref="SiteEmitter.Branch(Assembler, StaticKey, Label, BranchHint, int)"/>.</remarks>
public sealed class StaticKey : LiveSetting
{
    /// <summary>Makes a key.</summary>
    /// <param name="name">A name for reports and plans.</param>
    /// <param name="enabled">Whether it is enabled once from the start.</param>
    public StaticKey(string name, bool enabled = false)
        : base(name, enabled ? 1 : 0)
    {
    }

    /// <summary>Whether it is on: enabled more often than disabled.</summary>
    public bool IsEnabled => Value > 0;

    /// <summary>How much more often it was enabled than disabled; never below 0.</summary>
    public int Count => (int)Value;

    internal override string Show(long value) =>
        value > 0 ? string.Create(CultureInfo.InvariantCulture, $"on ({value})") : "off";

    internal override PatchDiagnostic? Check(long value) => value is >= 0 and <= int.MaxValue ? null :
        PatchDiagnostic.Error(DiagnosticCodes.KeyCount, value < 0
            ? $"the key \"{Name}\" is disabled more often than it was enabled" : $"the key \"{Name}\" is enabled too often") with
        {
            Found = $"a count of {value.ToString(CultureInfo.InvariantCulture)}",
            Expected = $"0 to {int.MaxValue.ToString(CultureInfo.InvariantCulture)}",
            Help = "Enable and disable come in pairs.",
        };
}

/// <summary>Which way the code behind a key's site is laid out: what falls through.</summary>
public enum BranchHint
{
    /// <summary>Control falls through while the key is off, and jumps while it is on.</summary>
    Unlikely,

    /// <summary>Control falls through while the key is on, and jumps while it is off.</summary>
    Likely,
}
