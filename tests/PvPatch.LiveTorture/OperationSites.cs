using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Sites of operations, plain ones and those that pass something: an argument, operands in registers of their own, a word of the executor,
/// their return address to a stub that asks for a link; and functions and vectors that are replaced whole. Each with what stands around it:
/// it makes of the site's result the number of the backend, the implementation or the target.
/// </summary>
internal sealed class OperationSites(SettingCode code, TortureOptions options, Random random)
{
    private const int EntryMark = 16; // an entry is called with its number times this in eax

    // In which of the kept registers a site has its operands and its result: for each its place in the list of kept ones.
    private static readonly (CallConvention? Convention, int First, int Second)[] s_operands =
    [
        (null, 3, 2), // rdi, rsi; the result in rax
        (Create("swapped", RegisterSet.Rsi, RegisterSet.Rdi, RegisterSet.R8), 2, 3),
        (Create("elsewhere", RegisterSet.R9, RegisterSet.Rcx, RegisterSet.Rdx), 5, 0),
        (Create("in place", RegisterSet.R10, RegisterSet.R11, RegisterSet.R10), 6, 7),
    ];

    /// <summary>Implementation n of an entry: gives n where it was called as that entry. Keeps the carry.</summary>
    public static void Implement(Assembler a, int entry, int n) => a.lea(rax, __[rax + n - EntryMark * entry]);

    public void Emit(SiteKind kind, SitePlace place, int linkWord)
    {
        switch (kind)
        {
            case SiteKind.Arguments:
                EmitArgument(place);
                break;
            case SiteKind.Operands:
                EmitOperands(place);
                break;
            case SiteKind.Words:
                EmitWord(place);
                break;
            case SiteKind.Entries:
                EmitEntry(place);
                break;
            case SiteKind.Requests:
                CheckedSite.Before(place.Assembler, linkWord + place.Index, place.Number, linkWord + place.Index);
                Emit(place, SettingBackends.Ask, RegisterSet.Rax);
                CheckedSite.Behind(
                    place.Assembler, linkWord + place.Index, SettingCounts.Request, SettingCounts.Backends, place.Leave, keepsCarry: true);
                break;
            default:
                CheckedSite.Before(place.Assembler, code.OpWord, place.Number);
                Emit(place, "t.op", RegisterSet.Rax);
                Behind(place, SettingCounts.Op);
                break;
        }
    }

    /// <summary>The value, every second time with the site's own address: rax - value - address is the backend.</summary>
    private void EmitArgument(SitePlace place)
    {
        Assembler a = place.Assembler;
        bool withAddress = place.Index % 2 == 1;
        long value = random.NextInt64() >> (random.Next(3) * 24); // moves of 4 and of 8 bytes
        var argument = new SiteArgument((ulong)value) { AddressRegister = withAddress ? RegisterSet.Rsi : null };
        if (options.Protocol == Protocol.WrongArgument && place.Index == 0)
        {
            argument = argument with { Value = argument.Value + 1 };
        }

        CheckedSite.Before(a, code.OpWord, place.Number);
        a.mov(rax, value); // what is left where the operation is nothing
        int budget = random.Next(6, 9);
        RegisterSet allowed = RegisterSet.Rax | RegisterSet.Rdi | (withAddress ? RegisterSet.Rsi : RegisterSet.None);
        Emit(place, withAddress ? "t.where" : "t.arg", allowed, budget, argument);
        if (withAddress)
        {
            Label behind = a.CreateLabel();
            a.Label(ref behind);
            a.lea(rsi, __[behind]);
            a.jnc(place.Leave);
            a.sub(rax, rsi);
            a.add(rax, budget);
            CheckedSite.Restore(a, rsi);
        }
        else
        {
            a.jnc(place.Leave);
        }

        a.mov(rdi, value);
        a.sub(rax, rdi);
        CheckedSite.Restore(a, rdi);
        Behind(place, SettingCounts.Argument, keepsCarry: false);
    }

    /// <summary>The sum of two kept registers, which are r12 + first and r12 + second: less these it is the backend.</summary>
    private void EmitOperands(SitePlace place)
    {
        Assembler a = place.Assembler;
        int number = place.Index % s_operands.Length;
        (CallConvention? convention, int first, int second) = s_operands[number];
        AssemblerRegister64 result = convention?.ResultRegister ?? rax;
        if (options.Protocol == Protocol.WrongRegister && place.Index == 1)
        {
            convention = s_operands[number + 1].Convention;
        }

        CheckedSite.Before(a, code.OpWord, place.Number);
        Emit(place, "u.add", convention is null ? RegisterSet.Rax : null, random.Next(6, 9), default, convention);
        a.jnc(place.Leave);
        a.mov(rax, result);
        a.sub(rax, r12);
        a.sub(rax, r12);
        a.sub(rax, first + second);
        if (convention is not null)
        {
            CheckedSite.Restore(a, result);
        }

        Behind(place, SettingCounts.Operand, keepsCarry: false);
    }

    /// <summary>The executor's own number, or a word that each execution adds one to, exactly once.</summary>
    private void EmitWord(SitePlace place)
    {
        Assembler a = place.Assembler;
        bool counts = place.Index % 2 == 1;
        CheckedSite.Before(a, code.OpWord, place.Number);
        if (code.WordsBehindRegister)
        {
            a.mov(rdx, __qword_ptr[r15 + SettingCounts.WordsAddress * 8]);
        }

        Emit(place, counts ? "t.count" : "t.own", RegisterSet.Rax | (counts ? RegisterSet.Flags : RegisterSet.None), random.Next(6, 16));
        a.jnc(place.Leave); // an increment keeps it too
        if (counts)
        {
            a.inc(__qword_ptr[r15 + SettingCounts.Counted * 8]);
            a.mov(rdi, code.Backends.Words.Operand(SettingBackends.Count));
            a.cmp(rdi, __qword_ptr[r15 + SettingCounts.Counted * 8]);
            a.jne(place.Leave);
            CheckedSite.Restore(a, rdi);
        }
        else
        {
            a.sub(rax, __qword_ptr[r15 + SettingCounts.Own * 8]);
        }

        if (code.WordsBehindRegister)
        {
            CheckedSite.Restore(a, rdx);
        }

        Behind(place, SettingCounts.Word, keepsCarry: false);
    }

    /// <summary>A function behind an entry, one through the table that a constant leads to, or one of the backend's vectors.</summary>
    private void EmitEntry(SitePlace place)
    {
        Assembler a = place.Assembler;
        int kind = place.Index % 4;
        int entry = random.Next(code.Entries.Length);
        if (kind == 3)
        {
            CheckedSite.Before(a, code.OpWord, place.Number);
            a.mov(rax, code.Arena.SlotsOf(code.Backends.Layout).AddressOf(code.Backends.Layout[$"t.v{place.Index / 4 % 2}"]).Value);
            a.call(__qword_ptr[rax]);
            Behind(place, SettingCounts.Vector);
            return;
        }

        CheckedSite.Before(a, code.EntryWord, place.Number, EntryMark * entry);
        if (kind == 2)
        {
            place.Sites.Constant(a, code.Table, static b => b.mov(rdi, 0L));
            a.call(__qword_ptr[rdi + entry * 8]);
            CheckedSite.Restore(a, rdi);
        }
        else
        {
            Label function = a.CreateLabel();
            a.call(function);
            place.Functions.Add(() =>
            {
                a.Label(ref function);
                place.Sites.Entry(a, code.Entries[entry]);
                Implement(a, entry, 0);
                a.ret();
            });
        }

        CheckedSite.Behind(
            a, code.EntryWord, SettingCounts.Entry, SettingCode.Implementations, place.Leave, keepsCarry: true);
    }

    private void Emit(
        SitePlace place, string slot, RegisterSet? allowed, int budget = 0, SiteArgument argument = default,
        CallConvention? convention = null) =>
        place.Sites.Emit(
            place.Assembler, code.Backends.Layout[slot], budget == 0 ? random.Next(6, 9) : budget, allowed, argument: argument,
            convention: convention);

    private void Behind(SitePlace place, int counts, bool keepsCarry = true) =>
        CheckedSite.Behind(place.Assembler, code.OpWord, counts, SettingCounts.Backends, place.Leave, keepsCarry);

    private static CallConvention Create(string name, RegisterSet first, RegisterSet second, RegisterSet result) =>
        CallConvention.Create(name, [first, second], result, RegisterSet.None);
}
