using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// A wish for one site: the target that it alone shall lead to, whatever its slot does. See <see cref="LivePatcher.Link(IReadOnlyList{SiteLink}, SwitchOptions?)"/>.
/// </summary>
/// <param name="Site">The site.</param>
/// <param name="Target">
/// Run address of the code it shall call, or jump to where its slot is a jump slot; <see langword="null"/> where it shall do again what its slot is switched to.
/// </param>
/// <param name="Destroys">What the target may destroy; <see langword="null"/> for what the slot's convention says. A jump's target is not asked.</param>
public readonly record struct SiteLink(LiveSite Site, VirtualAddress? Target, RegisterSet? Destroys = null);
