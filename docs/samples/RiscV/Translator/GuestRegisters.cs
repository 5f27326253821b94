using Iced.Intel;
using RiscV.Host;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Translator;

/// <summary>
/// Moves between host registers and guest registers, which are in memory. x0 is not: it reads as zero, and writes to it are not made.
/// </summary>
internal static class GuestRegisters
{
    public static AssemblerMemoryOperand At(int guest) => __qword_ptr[r15 + CpuLayout.X(guest)];

    public static void Load(Assembler a, AssemblerRegister64 host, int guest)
    {
        if (guest == 0)
        {
            a.mov(host, 0);
        }
        else
        {
            a.mov(host, At(guest));
        }
    }

    public static void Store(Assembler a, int guest, AssemblerRegister64 host)
    {
        if (guest != 0)
        {
            a.mov(At(guest), host);
        }
    }
}
