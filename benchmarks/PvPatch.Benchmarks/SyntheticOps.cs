using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Benchmarks;

/// <summary>
/// What a slot does, said by hand for the rivals: PvPatch computes the same from the instructions, and the results are compared.
/// </summary>
/// <param name="Kind">Nop, inline or call.</param>
/// <param name="Body">The finished body of an inline slot.</param>
/// <param name="Destroys">What the body or the callee destroys.</param>
internal sealed record SyntheticOp(OperationKind Kind, byte[] Body, RegisterSet Destroys);

/// <summary>The 40 slots of every workload: 6 nop, 12 inline, 22 call.</summary>
internal static class SyntheticOps
{
    public const int Nops = 6;
    public const int Calls = 22;
    public const int Count = Nops + 12 + Calls;

    public static readonly RegisterSet DestroyedByCall =
        RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx | RegisterSet.Rsi | RegisterSet.Rdi
        | RegisterSet.R8 | RegisterSet.R9 | RegisterSet.R10 | RegisterSet.R11 | RegisterSet.Flags;

    private static readonly SyntheticOp[] s_inline =
    [
        Inline(RegisterSet.None, 0xfa), // cli: the interrupt flag is what it is for, not what it destroys
        Inline(RegisterSet.None, 0xfb), // sti
        Inline(RegisterSet.Rax, 0x9c, 0x58), // pushfq; pop rax
        Inline(RegisterSet.Flags, 0x57, 0x9d), // push rdi; popfq
        Inline(RegisterSet.Rax, 0x48, 0x8b, 0x07), // mov rax,[rdi]
        Inline(RegisterSet.None, 0x48, 0x89, 0x37), // mov [rdi],rsi
        Inline(RegisterSet.Rax, 0x48, 0x89, 0xf8), // mov rax,rdi
        Inline(RegisterSet.Rax, 0x89, 0xf8), // mov eax,edi
        Inline(RegisterSet.None, 0x0f, 0x09), // wbinvd
        Inline(RegisterSet.None, 0x0f, 0x01, 0xf8), // swapgs
        Inline(RegisterSet.Rax, 0x48, 0x8d, 0x47, 0x10), // lea rax,[rdi+16]
        Inline(RegisterSet.Rax, 0xb8, 0x01, 0x00, 0x00, 0x00), // mov eax,1
    ];

    /// <summary>The slots by index. Kinds alternate as the numbers fall, so that neighbours differ.</summary>
    public static IReadOnlyList<SyntheticOp> All { get; } = Make();

    private static SyntheticOp[] Make()
    {
        var all = new List<SyntheticOp>(Count);
        all.AddRange(Enumerable.Repeat(new SyntheticOp(OperationKind.Nop, [], RegisterSet.None), Nops));
        all.AddRange(s_inline);
        all.AddRange(Enumerable.Repeat(new SyntheticOp(OperationKind.Call, [], DestroyedByCall), Calls));
        // 40 and 7 have no common divisor: a fixed shuffle.
        return [.. Enumerable.Range(0, Count).Select(i => all[i * 7 % Count])];
    }

    private static SyntheticOp Inline(RegisterSet destroys, params byte[] body) => new(OperationKind.Inline, body, destroys);
}
