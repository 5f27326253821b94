using System.Runtime.InteropServices;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Plans the changes of settings: their values to be, and for each site of those that change its bytes. A site of several settings is
/// planned once, by what all of them will be.
/// </summary>
internal sealed class SettingPlanner(CodeArena arena, SlotTable slots, LiveBodyBuilder builder)
{
    private readonly List<LiveSetting> _changed = [];
    private readonly HashSet<SettingSite> _shared = []; // sites of several settings that are planned

    // By action and length: what all sites have in common that do the same.
    private readonly LiveBody?[] _bodies = new LiveBody?[((int)PatchAction.Constant + 1) * (SiteBytes.LongestInstruction + 1)];

    /// <summary>What form a site of a setting has.</summary>
    public static LiveForm FormOf(PatchAction action) => action switch
    {
        PatchAction.Jump => LiveForm.Jump,
        PatchAction.Call => LiveForm.Call,
        _ => LiveForm.OneInstruction,
    };

    /// <summary>Plans.</summary>
    /// <param name="changes">The changes of settings among them are looked at, in order, and what backend all is switched to.</param>
    /// <param name="plan">Where decisions go.</param>
    /// <param name="report">Where findings go.</param>
    /// <param name="sites">Plans a site by its bytes.</param>
    public void Run(LiveChanges changes, PlannedSites plan, ApplyReport report, SitePlanner sites)
    {
        try
        {
            foreach (LiveChange change in slots.HasChoice ? changes.List : [])
            {
                if (change is { Kind: ChangeKind.Use, Scope.IsAll: true }
                    && !TrySet(slots.Choice, slots.Choice.NumberOf(change.Backend!), report))
                {
                    return;
                }
            }

            foreach (ref readonly SettingChange change in CollectionsMarshal.AsSpan(changes.Settings))
            {
                if (!TrySet(change.Setting, change.IsStep ? change.Setting.Pending + change.Value : change.Value, report))
                {
                    return;
                }
            }

            foreach (LiveSetting setting in CollectionsMarshal.AsSpan(_changed))
            {
                plan.Settings.Add((setting, setting.Pending));
                foreach (ref readonly LiveSite site in CollectionsMarshal.AsSpan(setting.Sites))
                {
                    PlanSite(site.Block, site.Index, plan, sites);
                }
            }
        }
        finally
        {
            // Told when everything is written; until then nothing has changed.
            foreach (LiveSetting setting in CollectionsMarshal.AsSpan(_changed))
            {
                (setting.Pending, setting.IsChanging) = (setting.Value, false);
            }

            _changed.Clear();
            _shared.Clear();
        }
    }

    private bool TrySet(LiveSetting setting, long value, ApplyReport report)
    {
        if ((setting.Check(value) ?? CheckTarget(setting, value)) is PatchDiagnostic error)
        {
            report.Add(error);
            return false;
        }

        if (!setting.IsChanging)
        {
            setting.IsChanging = true;
            _changed.Add(setting);
        }

        setting.Pending = value;
        return true;
    }

    /// <summary>Whether a static call can lead to a function; where that is out of reach, a jump of the arena is made for it.</summary>
    private PatchDiagnostic? CheckTarget(LiveSetting setting, long value)
    {
        if (setting is not StaticCall call || StaticCall.CodeOf(value) is not VirtualAddress target)
        {
            return null;
        }

        PatchDiagnostic? error = builder.IsCode(target) ? LinkLedger.CheckTarget(arena.Ledger.BlockAt(target), call.Name, target)
            : LiveBodyBuilder.NoCode(call.Name, target);
        if (error is null && !arena.Reaches(target))
        {
            _ = arena.Functions.TryGetFar(target, out _, out error);
        }

        return error;
    }

    private void PlanSite(CodeBlock block, int index, PlannedSites plan, SitePlanner sites)
    {
        SettingSite setting = block.SettingOf(index)!;
        if (block.IsRetired || (setting.Settings.Length > 1 && !_shared.Add(setting)))
        {
            return;
        }

        int length = block.KindOf(index).Budget;
        SiteBytes bytes = setting.Decide(block.AddressOf(index), length, out PatchAction action);
        sites.PlanBytes(plan.NumberOf(block), block, index, BodyOf(action, length), bytes);
    }

    private LiveBody BodyOf(PatchAction action, int length)
    {
        ref LiveBody? body = ref _bodies[(int)action * (SiteBytes.LongestInstruction + 1) + length];
        return body ??= new LiveBody
        {
            Form = FormOf(action),
            Action = action,
            Length = length,
            Mask = new SiteBytes(ulong.MaxValue, ulong.MaxValue).Cut(length),
        };
    }
}
