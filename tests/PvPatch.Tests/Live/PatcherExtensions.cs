using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Short forms of what tests ask of a patcher all the time; where one begins with Try, the result tells what happened.</summary>
internal static class PatcherExtensions
{
    public static ApplyResult Switch(this LivePatcher patcher, Backend backend, SwitchOptions options) =>
        patcher.Switch(backend, scope: null, options);

    public static ApplyResult Switch(this LivePatcher patcher, OpSlot slot, Backend backend, SwitchOptions? options = null) =>
        patcher.Switch(backend, SiteScope.Slot(slot), options);

    public static ApplyResult Switch(
        this LivePatcher patcher, IReadOnlyList<LiveSite> sites, Backend backend, SwitchOptions? options = null) =>
        patcher.Switch(backend, SiteScope.Sites(sites), options);

    public static ApplyResult TrySwitch(this LivePatcher patcher, Backend backend, SwitchOptions? options = null)
    {
        _ = patcher.TrySwitch(backend, scope: null, options, out ApplyResult result);
        return result;
    }

    public static ApplyResult TryApply(this LivePatcher patcher, Action<LiveChanges> changes, SwitchOptions? options = null)
    {
        _ = patcher.TryApply(changes, options, out ApplyResult result);
        return result;
    }

    public static ApplyResult Link(this LivePatcher patcher, LiveSite site, VirtualAddress target, SwitchOptions? options = null) =>
        patcher.Link([new SiteLink(site, target)], options);

    public static ApplyResult TryLink(this LivePatcher patcher, IReadOnlyList<SiteLink> links, SwitchOptions? options = null)
    {
        _ = patcher.TryLink(links, options, out ApplyResult result);
        return result;
    }

    public static ApplyResult Unlink(this LivePatcher patcher, IReadOnlyList<LiveSite> sites, SwitchOptions? options = null) =>
        patcher.Unlink(SiteScope.Sites(sites), options);

    public static ApplyResult UnlinkFrom(this LivePatcher patcher, IReadOnlyList<CodeBlock> blocks, SwitchOptions? options = null) =>
        patcher.Unlink(SiteScope.LinkedInto(blocks), options);

    public static ApplyResult Revert(this LivePatcher patcher, SwitchOptions options) => patcher.Revert(scope: null, options);

    public static ApplyResult Revert(this LivePatcher patcher, IReadOnlyList<LiveSite> sites, SwitchOptions? options = null) =>
        patcher.Revert(SiteScope.Sites(sites), options);
}
