using System.Globalization;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// A function pointer compiled into the code (the kernel's static call): its sites are direct calls or jumps of the target, and nothing
/// where there is none. One target for all sites, and no slot to load.
/// </summary>
/// <remarks>
/// Sites are emitted by <see cref="SiteEmitter.Call"/>, <see cref="SiteEmitter.Jump"/>, <see cref="SiteEmitter.JumpIf"/> and
/// <see cref="SiteEmitter.Entry"/>. What the target may destroy is between it and the code that calls it, as with any call. A block that
/// it lies in can't be retired while it is the target (PV8032).
/// </remarks>
public sealed class StaticCall : LiveSetting
{
    /// <summary>Makes a call of nothing.</summary>
    /// <param name="name">A name for reports and plans.</param>
    public StaticCall(string name)
        : base(name, StaticCallCode.Null)
    {
    }

    /// <summary>The function called; <see langword="null"/> where there is none.</summary>
    public VirtualAddress? Target => Value is StaticCallCode.Null or StaticCallCode.Zero ? null : new VirtualAddress((ulong)Value);

    /// <summary>Whether calls do nothing but give 0.</summary>
    public bool ReturnsZero => Value == StaticCallCode.Zero;

    internal override PatchDiagnostic? Check(long value) => CheckSites(value);

    internal override string Show(long value) => value switch
    {
        StaticCallCode.Null => "nothing",
        StaticCallCode.Zero => "0",
        _ => string.Create(CultureInfo.InvariantCulture, $"{new VirtualAddress((ulong)value)}"),
    };

    /// <summary>The code that a value leads to, if any.</summary>
    internal static VirtualAddress? CodeOf(long value) =>
        value is StaticCallCode.Null or StaticCallCode.Zero ? null : new VirtualAddress((ulong)value);
}
