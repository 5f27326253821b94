namespace PvPatch;

/// <summary>The one exception type of PvPatch: carries the <see cref="PatchDiagnostic"/> that says what is wrong.</summary>
/// <remarks>
/// Thrown by the forms without <c>Try</c>. Nothing has been written when it is thrown, unless its diagnostic says otherwise.
/// </remarks>
public sealed class PatchException : Exception
{
    /// <summary>Makes the exception for one diagnostic.</summary>
    /// <param name="diagnostic">What is wrong.</param>
    public PatchException(PatchDiagnostic diagnostic)
        : base(diagnostic?.ToString())
    {
        ArgumentNullException.ThrowIfNull(diagnostic);
        Diagnostic = diagnostic;
    }

    /// <summary>Makes the exception for a diagnostic caused by another exception (a file that cannot be read, say).</summary>
    /// <param name="diagnostic">What is wrong.</param>
    /// <param name="inner">The cause.</param>
    public PatchException(PatchDiagnostic diagnostic, Exception inner)
        : base(diagnostic?.ToString(), inner)
    {
        ArgumentNullException.ThrowIfNull(diagnostic);
        Diagnostic = diagnostic;
    }

    /// <summary>What is wrong: the first error where there are several.</summary>
    public PatchDiagnostic Diagnostic { get; }
}
