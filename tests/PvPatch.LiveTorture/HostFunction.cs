using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// The same function as a host with an emitter of its own would write it: piece by piece, its sites registered by address. They call
/// through a word in the host's memory,
/// <c>call [r15+78h]</c>, so they can have five bytes, which none that is emitted by the library has.
/// </summary>
internal sealed class HostFunction(CodeArena arena, OpsLayout layout, VirtualAddress callee)
{
    public const int ShortestSite = 5;

    private const int LongestSite = 15;
    private const int LineSize = 64;
    private const int Capacity = 8192;
    private const int SlotWord = 15 * sizeof(long); // the last of the numbers the function is given, which counts nothing

    private static readonly AssemblerRegister64[] s_saved = [rbx, rbp, r12, r13, r14, r15];

    private readonly List<byte> _bytes = [];
    private readonly List<PatchSite> _sites = [];
    private VirtualAddress _start;

    /// <summary>Writes it: its sites lie anywhere they can be changed live.</summary>
    public (CodeBlock Block, VirtualAddress Entry) Emit(Random random)
    {
        using CodeReservation room = arena.Allocate(Capacity);
        _start = room.Address;
        VirtualAddress leave = Here;
        Piece(static a =>
        {
            a.mov(rax, rbx);
            a.mov(rsp, rbp);
            a.add(rsp, 8);
            foreach (AssemblerRegister64 register in s_saved.Reverse())
            {
                a.pop(register);
            }

            a.ret();
        });
        VirtualAddress entry = Here;
        Piece(a =>
        {
            foreach (AssemblerRegister64 register in s_saved)
            {
                a.push(register);
            }

            a.sub(rsp, 8);
            a.mov(r15, rdi);
            a.mov(r14, rsi);
            a.mov(rbp, rsp);
            a.mov(rax, callee.Value);
            a.mov(__qword_ptr[r15 + SlotWord], rax);
            TortureCode.SetKept(a);
        });
        VirtualAddress loop = Here;
        for (int i = 0; i < TortureCode.SitesInFunction; i++)
        {
            int number = i + 1;
            Piece(a => TortureCode.Prepare(a, number));
            Site(random);
            Piece(a => TortureCode.Check(a, leave.Value));
        }

        Piece(a =>
        {
            a.dec(r14);
            a.jnz(loop.Value);
            a.xor(ebx, ebx);
            a.jmp(leave.Value);
        });
        _bytes.ToArray().CopyTo(room.Span);
        return (room.Commit(_bytes.Count, layout, SiteTable.Create([.. _sites])), entry);
    }

    private VirtualAddress Here => _start + _bytes.Count;

    private void Piece(Action<Assembler> write)
    {
        var assembler = new Assembler(64);
        write(assembler);
        var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), Here.Value);
        _bytes.AddRange(stream.ToArray());
    }

    private void Site(Random random)
    {
        int length;
        int start;
        do
        {
            length = random.Next(3) == 0 ? ShortestSite : random.Next(ShortestSite, LongestSite + 1);
            start = random.Next(LineSize);
        }
        while (SiteRecord.Classify(
            (ulong)start, length, single: true, SiteRecord.HasAtomic16, trustLines: false) == SiteClass.QuiescentOnly);

        while ((int)(Here.Value % LineSize) != start)
        {
            _bytes.Add(0x90); // nop
        }

        // cs prefixes, which do nothing; 41 ff 57 disp8: call [r15+disp8], at the site's end
        _sites.Add(new PatchSite(Here, layout["t.op"].Index, length, RegisterSet.Rax));
        _bytes.AddRange(Enumerable.Repeat((byte)0x2e, length - 4));
        _bytes.AddRange([0x41, 0xff, 0x57, SlotWord]);
    }
}
