using System.Globalization;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>What code may do from an address on until it returns, everything it calls included.</summary>
public sealed class FunctionEffects
{
    internal FunctionEffects(FunctionFlow flow)
    {
        Address = flow.Entry;
        Destroys = RegisterSet.FromBits(flow.Destroys & ~RegisterSet.Rsp.Bits);
        Returns = flow.Returns;
        IsStackBalanced = (flow.Destroys & RegisterSet.Rsp.Bits) == 0;
        UsesRedZone = flow.UsesRedZone;
        Undecided = AnalysisDiagnostics.Of(flow);
    }

    /// <summary>Run address of the first instruction.</summary>
    public VirtualAddress Address { get; }

    /// <summary>
    /// What may not be at a return what it was at entry: registers, flags, vector state. Empty for code that never returns.
    /// </summary>
    public RegisterSet Destroys { get; }

    /// <summary>Whether it may return.</summary>
    public bool Returns { get; }

    /// <summary>Whether every return pops the caller's return address and nothing else.</summary>
    public bool IsStackBalanced { get; }

    /// <summary>Whether it may use memory below the stack pointer.</summary>
    public bool UsesRedZone { get; }

    /// <summary>
    /// Why the code could not be followed (PV9001) or the work was given up (PV9002), so that everything is taken as destroyed;
    /// <see langword="null"/> where it could.
    /// </summary>
    public PatchDiagnostic? Undecided { get; }

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Address}: {(Returns ? $"destroys {Destroys}" : "never returns")}{(IsStackBalanced ? "" : ", moves the stack pointer")}"
            + $"{(UsesRedZone ? ", uses the red zone" : "")}");
}

/// <summary>The findings of the analyses.</summary>
internal static class AnalysisDiagnostics
{
    public static PatchDiagnostic? Of(FunctionFlow flow) => flow.Problem switch
    {
        FlowProblem.None => null,
        FlowProblem.Budget => OverBudget(flow.Entry),
        _ => PatchDiagnostic.Warning(
            DiagnosticCodes.CodeNotFollowed, $"what the code at {flow.Entry:x} does is not known: {What(flow.Problem)}") with
        {
            Address = flow.ProblemAddress,
            Help = "Everything is taken as destroyed.",
        },
    };

    public static PatchDiagnostic OverBudget(VirtualAddress address) =>
        PatchDiagnostic.Warning(DiagnosticCodes.AnalysisBudget, "the analysis was given up: it takes more work than is allowed") with
        {
            Address = address,
            Help = "Everything is taken as destroyed and live. Allow more work, or state facts of the functions called.",
        };

    private static string What(FlowProblem problem) => problem switch
    {
        FlowProblem.NoInstruction or FlowProblem.OutsideImage => "control comes to bytes that are no instruction or not in the image",
        FlowProblem.IndirectJump => "it jumps to an address that is not known",
        FlowProblem.UnknownCall => "it calls a function that is not known",
        FlowProblem.ReturnAddress => "it overwrites its return address",
        FlowProblem.InterruptReturn => "it returns from an interrupt",
        _ => "it returns with a stack pointer that is not known",
    };
}
