using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Analysis;

/// <summary>
/// Functions of random instructions, f0 to f3, each calling later ones: prologues that save registers, sometimes given back in a wrong
/// order, parts of registers, conditional moves, flags, the stack above and below its pointer. Labels s0, s1, … stand before instructions.
/// </summary>
internal static class RandomFunctions
{
    public const int Data = 0x300000;
    private const int Functions = 4;

    public static AnalysedCode Create(Random random) => AnalysedCode.Of((a, label) => new Writer(a, label, random).Write());

    private sealed class Writer(Assembler a, NamedLabels label, Random random)
    {
        private int _sites;
        private int _current;
        private int _pushed;

        public void Write()
        {
            for (_current = 0; _current < Functions; _current++)
            {
                label.Here($"f{_current}");
                a.nop();
                WriteFunction();
                for (int i = random.Next(2) * 40; i > 0; i--)
                {
                    a.int3();
                }
            }
        }

        private void WriteFunction()
        {
            var saved = new List<AssemblerRegister64>();
            for (int i = random.Next(4); i > 0; i--)
            {
                saved.Add(Whole(Any()));
                a.push(saved[^1]);
            }

            bool flags = random.Next(4) == 0;
            if (flags)
            {
                a.pushfq();
            }

            int room = random.Next(3) * 8;
            _pushed = (saved.Count * 8) + (flags ? 8 : 0) + room;
            if (room > 0)
            {
                a.sub(rsp, room);
            }

            WriteBody(random.Next(2, 14), 0);
            if (room > 0)
            {
                a.lea(rsp, __[rsp + room]);
            }

            if (flags)
            {
                a.popfq();
            }

            saved.Reverse();
            if (saved.Count > 1 && random.Next(6) == 0)
            {
                (saved[0], saved[1]) = (saved[1], saved[0]);
            }

            foreach (AssemblerRegister64 register in saved)
            {
                a.pop(register);
            }

            a.ret();
        }

        private void WriteBody(int count, int depth)
        {
            for (int i = 0; i < count; i++)
            {
                label.Here($"s{_sites++}");
                a.nop();
                switch (depth < 3 ? random.Next(16) : 15)
                {
                    case 0:
                        Label over = a.CreateLabel();
                        Skip(over);
                        WriteBody(random.Next(1, 5), depth + 1);
                        a.nop();
                        a.Label(ref over);
                        a.nop();
                        break;
                    case 1:
                        Label other = a.CreateLabel();
                        Label end = a.CreateLabel();
                        Skip(other);
                        WriteBody(random.Next(1, 4), depth + 1);
                        a.jmp(end);
                        a.Label(ref other);
                        a.nop();
                        WriteBody(random.Next(1, 4), depth + 1);
                        a.nop();
                        a.Label(ref end);
                        a.nop();
                        break;
                    case 2:
                        Label again = a.CreateLabel();
                        a.Label(ref again);
                        a.nop();
                        WriteBody(random.Next(1, 4), depth + 1);
                        a.dec(Byte(Any()));
                        a.jne(again);
                        break;
                    case 3 when _current + 1 < Functions:
                        a.call(label[$"f{random.Next(_current + 1, Functions)}"]);
                        break;
                    default:
                        WriteInstruction();
                        break;
                }
            }
        }

        private void Skip(Label to)
        {
            switch (random.Next(6))
            {
                case 0: a.je(to); break;
                case 1: a.jb(to); break;
                case 2: a.jl(to); break;
                case 3: a.jp(to); break;
                case 4: a.jrcxz(to); break;
                default: a.test(Byte(Any()), (sbyte)random.Next(-128, 128)); a.jne(to); break;
            }
        }

        private void WriteInstruction()
        {
            int x = Any();
            int y = Any();
            int constant = random.Next(5) switch { 0 => -1, 1 => 0, 2 => 0xff, 3 => 0xff00, _ => random.Next() };
            switch (random.Next(44))
            {
                case 0: a.mov(Whole(x), Whole(y)); break;
                case 1: a.mov(Dword(x), Dword(y)); break;
                case 2: a.mov(Word(x), Word(y)); break;
                case 3: a.mov(Byte(x), Byte(y)); break;
                case 4: a.mov(random.Next(2) == 0 ? ah : bh, random.Next(2) == 0 ? ch : dh); break;
                case 5: a.mov(Dword(x), constant); break;
                case 6: a.movzx(Dword(x), Byte(y)); break;
                case 7: a.movsx(Whole(x), Word(y)); break;
                case 8: a.and(Dword(x), constant); break;
                case 9: a.or(Whole(x), constant); break;
                case 10: a.xor(Word(x), Word(y)); break;
                case 11: a.and(Whole(x), Whole(y)); break;
                case 12: a.or(Byte(x), Byte(y)); break;
                case 13: a.xor(Dword(x), Dword(x)); break;
                case 14: a.sbb(Dword(x), Dword(random.Next(2) == 0 ? x : y)); break;
                case 15: a.not(Whole(x)); break;
                case 16: a.add(Whole(x), Whole(y)); break;
                case 17: a.adc(Byte(x), Byte(y)); break;
                case 18: a.sub(Dword(x), constant); break;
                case 19: a.lea(Whole(x), __[Whole(y) + (Whole(x) * 4) + 5]); break;
                case 20: a.shl(Dword(x), cl); break;
                case 21: a.sar(Whole(x), (byte)random.Next(3)); break;
                case 22: a.rol(Byte(x), (byte)3); break;
                case 23: a.cmove(Whole(x), Whole(y)); break;
                case 24: a.cmovb(Dword(x), Dword(y)); break;
                case 25: a.setl(Byte(x)); break;
                case 26: a.cmp(Whole(x), Whole(y)); break;
                case 27: a.test(Word(x), Word(y)); break;
                case 28: a.inc(Dword(x)); break;
                case 29: a.neg(Byte(x)); break;
                case 30: a.xchg(Whole(x), Whole(y)); break;
                case 31: a.imul(Whole(x), Whole(y)); break;
                case 32: a.mul(Byte(x)); break;
                case 33: a.cdq(); break;
                case 34: a.bswap(Whole(x)); break;
                case 35: a.mov(__qword_ptr[Data + (random.Next(4) * 8)], Whole(x)); break;
                case 36: a.mov(Whole(x), __qword_ptr[Data + (random.Next(4) * 8)]); break;
                case 37: a.mov(__byte_ptr[Data + random.Next(32)], Byte(x)); break;
                case 38: a.mov(__[rsp + Place()], Whole(x)); break;
                case 39: a.mov(Whole(x), __[rsp + Place()]); break;
                case 40: a.mov(__dword_ptr[rsp + Place()], Dword(x)); break;
                case 41: a.push(Whole(x)); a.pop(Whole(y)); break;
                case 42: a.stc(); break;
                default: a.mov(Whole(x), rsp); a.mov(__[Whole(x) + Place()], Whole(y)); break;
            }
        }

        // Anywhere among what was pushed and a little below, but not the return address: what overwrites that goes nowhere.
        private int Place() => (random.Next(-2, Math.Max(1, _pushed / 8)) * 8) + (_pushed > 8 && random.Next(5) == 0 ? -4 : 0);

        private int Any() => random.Next(5) == 0
            ? random.Next(8, 16) : random.Next(4) switch { 0 => 0, 1 => 1, 2 => 2, _ => random.Next(2) == 0 ? 3 : random.Next(5, 8) };

        private static AssemblerRegister64 Whole(int number) => new(Register.RAX + number);

        private static AssemblerRegister32 Dword(int number) => new(Register.EAX + number);

        private static AssemblerRegister16 Word(int number) => new(Register.AX + number);

        private static AssemblerRegister8 Byte(int number) => new(number < 4 ? Register.AL + number : Register.SPL + number - 4);
    }
}
