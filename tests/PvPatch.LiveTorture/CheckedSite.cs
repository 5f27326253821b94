using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// What stands around a site: the state in which it is come to, and the check behind it. Registers that a function gives its meaning:
/// <code>
/// rbx  number of the site        rbp  the stack pointer       r12  where the kept registers' numbers begin
/// r13  the setting's word        r14  the words               r15  the executor's counts
/// rcx rdx rsi rdi r8 r9 r10 r11  kept: r12, r12 + 1, … r12 + 7
/// </code>
/// </summary>
internal static class CheckedSite
{
    public static readonly AssemblerRegister64[] Kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];

    private static readonly AssemblerRegister64[] s_saved = [rbx, rbp, r12, r13, r14, r15];

    /// <summary>long function(long* counts, long* words): what comes before its first site.</summary>
    public static void EnterFunction(Assembler a, int loops)
    {
        foreach (AssemblerRegister64 register in s_saved)
        {
            a.push(register);
        }

        a.sub(rsp, 8); // aligned for the calls at the sites
        a.mov(r15, rdi);
        a.mov(r14, rsi);
        a.mov(rbp, rsp);
        a.mov(__qword_ptr[r15 + SettingCounts.LoopsLeft * 8], loops);
        TortureCode.SetKept(a);
    }

    /// <summary>Gives rbx back: 0, or the number of the site that failed.</summary>
    public static void LeaveFunction(Assembler a)
    {
        a.mov(rax, rbx);
        a.mov(rsp, rbp);
        a.add(rsp, 8);
        foreach (AssemblerRegister64 register in s_saved.Reverse())
        {
            a.pop(register);
        }

        a.ret();
    }

    /// <summary>What the setting was told to be, and the state in which a site is come to: eax as given, carry set.</summary>
    public static void Before(Assembler a, int word, int number, int result = 0)
    {
        a.mov(ebx, number);
        a.mov(r13, __qword_ptr[r14 + word * 8]);
        a.mov(eax, result);
        a.stc();
    }

    /// <summary>Gives a kept register its number again, behind a site that may change it.</summary>
    public static void Restore(Assembler a, AssemblerRegister64 register) =>
        a.lea(register, __[r12 + Array.IndexOf(Kept, register)]);

    /// <summary>
    /// Behind a site: rax is its result. Where the word has not changed and was not in motion, the result is the value it tells; in any
    /// case it is one of those that there are, and what is kept was kept.
    /// </summary>
    /// <param name="a">The assembler.</param>
    /// <param name="word">The setting's word.</param>
    /// <param name="counts">Where the counts of results begin.</param>
    /// <param name="results">How many results there are.</param>
    /// <param name="leave">Where to go when something is wrong.</param>
    /// <param name="keepsCarry">Whether the carry is still looked at: it was set before the site.</param>
    public static void Behind(Assembler a, int word, int counts, int results, Label leave, bool keepsCarry)
    {
        Label moved = a.CreateLabel();
        if (keepsCarry)
        {
            a.jnc(leave);
        }

        a.cmp(rsp, rbp);
        a.jne(leave);
        a.cmp(r13, __qword_ptr[r14 + word * 8]);
        a.jne(moved);
        a.test(r13d, (int)SettingWords.InMotion);
        a.jnz(moved);
        a.movzx(r13d, r13b);
        a.cmp(rax, r13);
        a.jne(leave);
        a.inc(__qword_ptr[r15 + SettingCounts.Checked * 8]);
        a.Label(ref moved);
        a.cmp(rax, results);
        a.jae(leave);
        a.inc(__qword_ptr[r15 + rax * 8 + counts * 8]);
        for (int i = 0; i < Kept.Length; i++)
        {
            a.lea(r13, __[r12 + i]);
            a.cmp(Kept[i], r13);
            a.jne(leave);
        }
    }
}

/// <summary>
/// The numbers that a function is given by its executor: for each kind of site how often it gave which result, then what the function uses.
/// </summary>
internal static class SettingCounts
{
    public const int Ways = 8;
    public const int Nothing = 7; // what eax holds where a call does nothing
    public const int Backends = 4;

    public const int Key = 0;
    public const int Pair = Key + 2;
    public const int Branch = Pair + 4;
    public const int Call = Branch + Ways + 1;
    public const int Op = Call + Nothing + 1;
    public const int Constant = Op + Backends;
    public const int Variant = Constant + Backends;
    public const int Argument = Variant + Backends;
    public const int Operand = Argument + Backends;
    public const int Word = Operand + Backends;
    public const int Entry = Word + Backends;
    public const int Vector = Entry + Backends;
    public const int Request = Vector + Backends;
    public const int Count = Request + Backends; // of results

    public const int LoopsLeft = Count;
    public const int Checked = LoopsLeft + 1; // executions at which the setting stood still
    public const int WordsAddress = Checked + 1; // where the executor's words are
    public const int Own = WordsAddress + 1; // what its own word holds
    public const int Counted = Own + 1; // what its counting word must hold
    public const int Length = Counted + 1;
}
