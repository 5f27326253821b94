using PvPatch.Analysis;
using PvPatch.Machine;

namespace PvPatch.Tests.Analysis;

/// <summary>Facts a test states.</summary>
internal sealed class TestFacts : ICodeFacts
{
    public CallConvention? Convention { get; init; }

    public Dictionary<ulong, FunctionFacts> Functions { get; init; } = [];

    public Dictionary<ulong, FunctionFacts> Calls { get; init; } = [];

    public Dictionary<ulong, VirtualAddress[]> Edges { get; init; } = [];

    public Dictionary<ulong, ulong> Next { get; init; } = [];

    public bool TrapsEnd { get; init; }

    public int? Variable { get; init; }

    public FunctionFacts? FunctionAt(VirtualAddress address) => Functions.GetValueOrDefault(address.Value);

    public FunctionFacts? CalledFrom(VirtualAddress instruction) => Calls.GetValueOrDefault(instruction.Value);

    public IReadOnlyList<VirtualAddress> EdgesOf(VirtualAddress instruction) => Edges.GetValueOrDefault(instruction.Value, []);

    public VirtualAddress NextOf(VirtualAddress instruction, VirtualAddress following) =>
        Next.TryGetValue(instruction.Value, out ulong to) ? to : following;

    public VirtualAddress? AfterTrap(VirtualAddress instruction, VirtualAddress following) => TrapsEnd ? null : following;

    public int? VariableArguments(VirtualAddress callee, int fixedCount, VirtualAddress? lastFixed) => Variable;
}
