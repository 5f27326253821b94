using System.Globalization;
using Iced.Intel;

namespace PvPatch.Live;

/// <summary>
/// A number compiled into the code (the kernel's runtime constant, a host's inline cache): the immediate or displacement of one instruction
/// at each of its sites. Generated code has it without a load.
/// </summary>
/// <remarks>
/// Sites are emitted by <see cref="SiteEmitter.Constant(Assembler, CodeConstant, Action{Assembler}, bool)"/>. A value that the field of one
/// of them can't have is refused (PV8039), and no site is changed.
/// </remarks>
public sealed class CodeConstant : LiveSetting
{
    /// <summary>Makes a constant.</summary>
    /// <param name="name">A name for reports and plans.</param>
    /// <param name="value">Its value at first.</param>
    public CodeConstant(string name, long value = 0)
        : base(name, value)
    {
    }

    /// <summary>Its value. Of a field of 8 bytes it may be meant as unsigned.</summary>
    public new long Value => base.Value;

    internal override PatchDiagnostic? Check(long value) => CheckSites(value);

    internal static PatchDiagnostic Unfit(string name, long value, long least, long most) =>
        PatchDiagnostic.Error(DiagnosticCodes.SettingValue, $"a site of \"{name}\" has no room for the value") with
        {
            Found = value.ToString(CultureInfo.InvariantCulture),
            Expected = string.Create(CultureInfo.InvariantCulture, $"{least} to {most}"),
            Help = "Emit the site with a number that needs as wide a field as any value will.",
        };
}
