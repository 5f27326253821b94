namespace PvPatch;

/// <summary>Collects findings up to a limit, so that a table of a million bad sites gives a readable report and bounded memory.</summary>
internal sealed class DiagnosticList
{
    private const int Limit = 100;
    private readonly List<PatchDiagnostic> _items = [];
    private int _errors;
    private int _dropped;

    public bool HasErrors => _errors > 0;

    public void Add(PatchDiagnostic diagnostic)
    {
        _errors += diagnostic.Severity == DiagnosticSeverity.Error ? 1 : 0;
        if (_items.Count < Limit)
        {
            _items.Add(diagnostic);
        }
        else
        {
            _dropped++;
        }
    }

    /// <summary>The findings, errors first, each kind in the order found; a last line counts what was left out.</summary>
    public IReadOnlyList<PatchDiagnostic> ToList()
    {
        var sorted = new List<PatchDiagnostic>(_items.Count + 1);
        sorted.AddRange(_items.Where(static d => d.Severity == DiagnosticSeverity.Error));
        sorted.AddRange(_items.Where(static d => d.Severity != DiagnosticSeverity.Error));
        if (_dropped > 0)
        {
            sorted.Add(new PatchDiagnostic(_items[^1].Code, DiagnosticSeverity.Info, $"{_dropped} more findings are not shown"));
        }

        return sorted;
    }
}
