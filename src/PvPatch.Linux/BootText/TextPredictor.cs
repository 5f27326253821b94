using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.BootText;

/// <summary>Predicts a kernel's text: the mechanisms of its rules, one after the other.</summary>
internal static class TextPredictor
{
    /// <summary>All mechanisms there are. The order is that of <see cref="TextRules.Order"/>, not of this list.</summary>
    public static IReadOnlyList<ITextMechanism> Mechanisms { get; } =
    [
        new KaslrRelocations(), new JumpLabels(), new StaticCalls(), new FtraceCalls(), new XenIretPatch(), new ParavirtSites(),
        new RetpolineSites(), new ReturnSites(), new AlternativeSites(), new CallThunks(), new EndbrSeals(), new SmpLocks(),
        new RuntimeConstants(), new StaticTrampolines(),
    ];

    /// <summary>Predicts the text.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="state">What decides.</param>
    /// <param name="text">The text.</param>
    /// <param name="findings">What was found on the way; errors where there is no prediction.</param>
    /// <param name="only">The mechanisms to apply; <see langword="null"/> for all.</param>
    /// <returns>Whether every record could be followed.</returns>
    public static bool TryPredict(
        TextKernel kernel, BootState state, [NotNullWhen(true)] out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings,
        IReadOnlySet<TextMechanism>? only = null)
    {
        var run = new TextRun(kernel, state, TextImage.Of(kernel.Elf, VdsoImages.Find(kernel)), new DiagnosticList());
        foreach (TextMechanism kind in kernel.Rules.Order)
        {
            if (only?.Contains(kind) ?? true)
            {
                Find(kind)?.Apply(run);
            }
        }

        findings = run.Findings.ToList();
        text = run.Findings.HasErrors ? null : run.Text;
        return text is not null;
    }

    /// <summary>The planner of a mechanism; <see langword="null"/> where there is none.</summary>
    public static ITextMechanism? Find(TextMechanism kind) => Mechanisms.FirstOrDefault(m => m.Kind == kind);
}
