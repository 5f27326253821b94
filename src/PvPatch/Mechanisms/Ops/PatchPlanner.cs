using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// Plans ops sites: for every site of a table, what a backend's operation makes of it. Writes nothing; the plan does, when it is
/// applied. Safe for several threads at once; keeps the templates it has assembled and the decisions for up to four backends.
/// </summary>
public sealed class PatchPlanner
{
    private readonly ILogger _logger;
    private readonly ILogger _planLogger;
    private readonly ConcurrentDictionary<(int Bitness, NopStyle Nops), TemplateStore> _templates = new(); // there are few nop styles

    /// <summary>
    /// Decisions of earlier plans: a host goes to and fro between backends. Whoever plans takes them out and puts them back, so that no two
    /// threads have them.
    /// </summary>
    private readonly KindDecisions?[] _kept = new KindDecisions?[4];

    private int _nextKept;

    /// <summary>Makes a planner.</summary>
    /// <param name="loggerFactory">Where it and its plans log; nowhere where there is none.</param>
    public PatchPlanner(ILoggerFactory? loggerFactory = null)
    {
        _logger = loggerFactory?.CreateLogger<PatchPlanner>() ?? (ILogger)NullLogger.Instance;
        _planLogger = loggerFactory?.CreateLogger<PatchPlan>() ?? (ILogger)NullLogger.Instance;
    }

    /// <summary>Makes a plan, or throws.</summary>
    /// <param name="image">The code; read only.</param>
    /// <param name="sites">Its sites.</param>
    /// <param name="backend">What their slots shall do.</param>
    /// <param name="options">Rules and what else there is to say; the defaults where there is nothing.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="PatchException">
    /// The plan can't be made; the diagnostic is the first of those <see cref="TryPlan"/> gives.
    /// </exception>
    public PatchPlan Plan(CodeImage image, SiteTable sites, Backend backend, PlanOptions? options = null) =>
        TryPlan(image, sites, backend, options, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan
            : throw new PatchException(diagnostics[0]);

    /// <summary>Makes a plan where everything about every site is in order.</summary>
    /// <param name="image">The code; read only.</param>
    /// <param name="sites">Its sites.</param>
    /// <param name="backend">What their slots shall do.</param>
    /// <param name="options">Rules and what else there is to say; the defaults where <see langword="null"/>.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="diagnostics">
    /// Where there is no plan, why (errors first, up to a hundred): sites outside the image (PV1005), unknown slots (PV1006, PV1007),
    /// unknown bytes (PV3001), a call through another slot (PV3002), a site the era's kernel would stop at (PV3004), wrong bitness
    /// (PV3005), bad room for thunks (PV3006), nops of the other bitness (PV3009), a body that does not assemble (PV2005). Else the plan's
    /// own warnings.
    /// </param>
    /// <returns>Whether there is a plan.</returns>
    public bool TryPlan(
        CodeImage image,
        SiteTable sites,
        Backend backend,
        PlanOptions? options,
        [NotNullWhen(true)] out PatchPlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(sites);
        ArgumentNullException.ThrowIfNull(backend);
        options ??= new PlanOptions();
        var found = new DiagnosticList();
        try
        {
            NopStyle nops = (image.Bitness == 64 ? options.Rules.Nops64 : options.Rules.Nops32) ?? options.Nops
                ?? NopStyle.Default(image.Bitness);
            if (!nops.Supports(image.Bitness))
            {
                throw new PatchException(
                    PatchDiagnostic.Error(DiagnosticCodes.WrongNops, $"the nops {nops} change registers in {image.Bitness}-bit code") with
                    {
                        Found = nops.Name,
                        Expected = string.Join(", ", NopStyle.All.Where(n => n.Supports(image.Bitness)).Select(static n => n.Name)),
                        Help = "Choose nops of the image's bitness.",
                    });
            }

            KindDecisions made = Take(backend, options, nops, image.Bitness)
                ?? new KindDecisions(backend, options, TemplatesOf(image.Bitness, nops), nops, image.Bitness);
            plan = new PlanRun(image, sites, backend, options, made, _planLogger, found).Execute();
            if (made.CanBeKept)
            {
                Keep(made);
            }
        }
        catch (PatchException e)
        {
            found.Add(e.Diagnostic);
            plan = null;
        }

        diagnostics = plan?.Diagnostics ?? found.ToList();
        Report(plan, backend, options, diagnostics);
        return plan is not null;
    }

    private TemplateStore TemplatesOf(int bitness, NopStyle nops) =>
        _templates.GetOrAdd((bitness, nops), static key => new TemplateStore(key.Bitness, key.Nops));

    private KindDecisions? Take(Backend backend, PlanOptions options, NopStyle nops, int bitness)
    {
        foreach (ref KindDecisions? place in _kept.AsSpan())
        {
            if (Interlocked.Exchange(ref place, null) is { } kept)
            {
                if (kept.AreFor(backend, options, nops, bitness))
                {
                    return kept;
                }

                Interlocked.CompareExchange(ref place, kept, null);
            }
        }

        return null;
    }

    private void Keep(KindDecisions made)
    {
        foreach (ref KindDecisions? place in _kept.AsSpan())
        {
            if (Interlocked.CompareExchange(ref place, made, null) is null)
            {
                return;
            }
        }

        Volatile.Write(ref _kept[(uint)Interlocked.Increment(ref _nextKept) % (uint)_kept.Length], made);
    }

    private void Report(PatchPlan? plan, Backend backend, PlanOptions options, IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        if (plan is null)
        {
            PlanLog.Failed(_logger, backend.Name, options.Rules.Name, diagnostics.Count, diagnostics[0]);
            return;
        }

        if (_logger.IsEnabled(LogLevel.Information))
        {
            PlanLog.Planned(_logger, plan.Count, plan.Backend, plan.Rules, plan.Summary);
        }

        if (_logger.IsEnabled(LogLevel.Debug))
        {
            for (int i = 0; i < plan.Count; i++)
            {
                PlanLog.PlannedSite(_logger, plan[i]);
            }
        }
    }
}
