using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>Text of the findings of a comparison of memory.</summary>
internal sealed class VerificationReport(MemoryVerification result)
{
    public List<PatchDiagnostic> Diagnostics(int maxSites)
    {
        List<PatchDiagnostic> all = [.. Whole(), .. Parts()];
        List<SiteVerification> told = result.State switch
        {
            MemoryState.Tampered => [.. result.Sites.Where(static s => s.State == MemorySiteState.Tampered)],
            MemoryState.Mixed => [.. result.MixedSites()],
            _ => [],
        };
        all.AddRange(told.Take(maxSites).Select(s => result.State == MemoryState.Tampered ? Tampered(s) : Stray(s)));
        if (told.Count > maxSites)
        {
            string code = result.State == MemoryState.Tampered ? KernelDiagnosticCodes.SiteTampered : KernelDiagnosticCodes.SitesMixed;
            string text = maxSites > 0 ? $"{told.Count - maxSites} more such sites are not shown"
                : result.State == MemoryState.Tampered
                ? $"{told.Count} of {result.Compared} sites hold bytes that neither the image nor any of the backends accounts for"
                : $"{told.Count} of {result.Compared} sites hold bytes that are not those of {result.Best.Backend}";
            all.Add(new PatchDiagnostic(code, DiagnosticSeverity.Error, text));
        }

        return [.. all.Select(d => d with { Source = result.Memory.File.Path })];
    }

    private string Counts =>
        string.Join(", ", result.Candidates.Select(c => string.Create(CultureInfo.InvariantCulture, $"{c.Backend} {c.Matched}")))
            + $" of {result.Compared} sites";

    private IEnumerable<PatchDiagnostic> Whole()
    {
        switch (result.State)
        {
            case MemoryState.NothingCompared:
                yield return PatchDiagnostic.Error(KernelDiagnosticCodes.NothingCompared, "no site could be compared") with
                {
                    Found = $"{result.Sites.Count} sites, none of them in the memory",
                    Help = "Take a dump that holds the kernel's code.",
                };
                break;
            case MemoryState.NotThisKernel:
                yield return PatchDiagnostic.Error(KernelDiagnosticCodes.KernelNotInMemory,
                    "most sites hold bytes that neither the image nor any of the backends accounts for") with
                {
                    Found = $"{result.Count(MemorySiteState.Tampered)} unknown; {Counts}",
                    Help = "Is it this very build? Did it run on a backend that was not asked for? Single sites are not told of.",
                };
                break;
            case MemoryState.NotPatched:
                yield return PatchDiagnostic.Warning(KernelDiagnosticCodes.MemoryNotPatched,
                    "every site holds its original bytes: the dump was taken before the kernel patched itself") with
                {
                    Found = $"{result.Compared} sites",
                    Help = "Take the dump later, when the kernel is up.",
                };
                break;
            case MemoryState.Mixed:
                yield return PatchDiagnostic.Error(
                    KernelDiagnosticCodes.SitesMixed, "every site holds known bytes, but not all of them of one backend") with
                {
                    Found = $"{Counts}, {result.Sites.Count(static s => s.State == MemorySiteState.Original)} original",
                    Expected = $"those of {result.Best.Backend} everywhere",
                    Help = "Was the dump taken while the kernel patched itself? Else sites were changed afterwards.",
                };
                break;
            default:
                break;
        }

        if (result.Tied.Count > 0 && result.State is MemoryState.Patched or MemoryState.Tampered or MemoryState.Mixed)
        {
            yield return new PatchDiagnostic(KernelDiagnosticCodes.BackendsTied, DiagnosticSeverity.Info,
                "more than one backend accounts for the sites equally well") with
            {
                Found = string.Join(", ", result.Tied.Select(static c => c.Backend).Prepend(result.Best.Backend)),
                Help = "At the sites that could be compared they leave the same bytes.",
            };
        }
    }

    private IEnumerable<PatchDiagnostic> Parts()
    {
        foreach (PatchDiagnostic leftOut in result.LeftOut)
        {
            yield return leftOut;
        }

        List<SiteVerification> unreadable = [.. result.Sites.Where(static s => s.State == MemorySiteState.Unreadable)];
        if (unreadable.Count > 0 && result.State != MemoryState.NothingCompared)
        {
            // Dumps without free pages (makedumpfile -d 16 and up) lack just what the kernel gave away.
            bool isFreed = result.IsComplete;
            yield return new PatchDiagnostic(KernelDiagnosticCodes.SitesUnreadable,
                isFreed ? DiagnosticSeverity.Info : DiagnosticSeverity.Warning, "sites are not in the memory") with
            {
                Address = unreadable[0].Address,
                Found = $"{unreadable.Count} of {result.Sites.Count} sites, the first of them here",
                Help = isFreed
                    ? "All lie in sections that the kernel frees at the end of its start; what stands there then is of no matter."
                    : "They were not compared, and the verdict is none of them. Take the dump again if it is cut short.",
            };
        }

        if (result.Count(MemorySiteState.Freed) is > 0 and int freed)
        {
            yield return new PatchDiagnostic(KernelDiagnosticCodes.SitesFreed, DiagnosticSeverity.Info,
                "sites lie in memory that the kernel freed at the end of its start") with
            {
                Address = result.Sites.First(static s => s.State == MemorySiteState.Freed).Address,
                Found = $"{freed} of {result.Sites.Count} sites, the first of them here",
                Help = "What stands there now is of no matter.",
            };
        }
    }

    private PatchDiagnostic Tampered(SiteVerification site) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SiteTampered,
            $"the site of {site.Decision.Label} in {site.Decision.Section} holds bytes that neither the image nor any of the backends "
            + $"accounts for") with
        {
            SiteIndex = site.Decision.Index,
            Address = site.Address,
            Found = HexBytes.Format(site.Found.Span),
            Expected = site.Expected(result.Memory.Slide ?? 0, result.Memory.Bitness),
        };

    private PatchDiagnostic Stray(SiteVerification site) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SitesMixed,
            $"the site of {site.Decision.Label} in {site.Decision.Section} holds bytes that are not those of {result.Best.Backend}") with
        {
            SiteIndex = site.Decision.Index,
            Address = site.Address,
            Found =
                $"{HexBytes.Format(site.Found.Span)} "
                + $"({string.Join(", ", site.IsOriginal ? site.Backends.Prepend(AllowedSite.Original) : site.Backends)})",
            Expected = site.Expected(result.Memory.Slide ?? 0, result.Memory.Bitness),
        };
}
