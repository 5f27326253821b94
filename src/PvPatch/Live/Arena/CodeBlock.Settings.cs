using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Sites that follow settings.</content>
public sealed partial class CodeBlock
{
    /// <summary>What a site follows, where that is settings; nothing where it is a slot's.</summary>
    internal SettingSite? SettingOf(int site) => _rare?.Settings?[site];

    internal void SetSetting(int site, SettingSite setting) => (Rare.Settings ??= new SettingSite?[_records.Length])[site] = setting;

    /// <summary>Whether its sites can follow their settings to what these are now. Under the patch lock.</summary>
    /// <exception cref="PatchException">A field is too small for the value, or a backend has no variant (PV8039).</exception>
    internal void CheckSettings()
    {
        for (int i = 0; i < (_rare?.Settings?.Length ?? 0); i++)
        {
            if (SettingOf(i) is SettingSite site && site.CheckValue(AddressOf(i), site.Settings[0].Value) is PatchDiagnostic error)
            {
                throw new PatchException(error with { SiteIndex = i, Address = AddressOf(i) });
            }
        }
    }

    /// <summary>
    /// Gives the sites that follow settings the bytes for what these are now. Under the patch lock, before anyone can run the block.
    /// </summary>
    /// <param name="claims">The settings that become the arena's.</param>
    /// <returns>Why one can't.</returns>
    internal PatchDiagnostic? SettleSettings(LiveSetting.Claims claims)
    {
        SettingSite?[] settings = _rare?.Settings ?? [];
        for (int i = 0; i < settings.Length; i++)
        {
            if (settings[i] is not SettingSite setting)
            {
                continue;
            }

            foreach (LiveSetting each in setting.Settings)
            {
                if (claims.Add(each) is PatchDiagnostic foreign)
                {
                    return foreign;
                }
            }

            int length = KindOf(i).Budget;
            SiteBytes bytes = setting.Decide(AddressOf(i), length, out PatchAction action);
            bytes.CopyTo(Arena.Memory.Span(AddressOf(i), length), length);
            SetBytes(i, bytes);
            _records[i].Set(LiveSiteState.Bound, SettingPlanner.FormOf(action), action, PatchReason.None);
        }

        return null;
    }

    /// <summary>Makes the sites that follow settings known to these. Under the same lock, when nothing can fail any more.</summary>
    internal void JoinSettings()
    {
        SettingSite?[] settings = _rare?.Settings ?? [];
        for (int i = 0; i < settings.Length; i++)
        {
            foreach (LiveSetting setting in settings[i] is SettingSite site ? site.Settings : [])
            {
                setting.Add(new LiveSite(this, i));
            }
        }
    }
}
