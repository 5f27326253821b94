using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

public sealed class PlacementPaddingTests
{
    // Of GNU as 2.40 (-64, Intel syntax) with "ds" written before: the same bytes with 3e in front.
    public static TheoryData<string, Action<Assembler>, string> Takers => new()
    {
        { "add eax,ebx", static a => a.add(eax, ebx), "01 d8" },
        { "movsd xmm0,[rsp]", static a => a.movsd(xmm0, __qword_ptr[rsp]), "f2 0f 10 04 24" },
        { "vaddps ymm0,ymm1,ymm2", static a => a.vaddps(ymm0, ymm1, ymm2), "c5 f4 58 c2" },
        { "mov r8w,[rbp+0x10]", static a => a.mov(r8w, __word_ptr[rbp + 0x10]), "66 44 8b 45 10" },
    };

    public static TheoryData<string, Action<Assembler>> Refusers => new()
    {
        { "call", static a => a.call(rax) },
        { "jcc", static a => a.jne(a.@F) },
        { "lock", static a => a.@lock.inc(__dword_ptr[rdi]) },
        { "rep", static a => a.rep.stosb() },
        { "its own segment", static a => a.mov(eax, __dword_ptr.fs[0]) },
        { "fwait and an instruction", static a => a.fstcw(__word_ptr[rdi]) },
        { "data", static a => a.db(0x90) },
        { "too long with more", static a => a.mov(__qword_ptr[rdi + rsi * 8 + 0x12345678], 1) },
    };

    [Theory]
    [MemberData(nameof(Takers))]
    public void Prefixes_on_the_instruction_before_bring_a_site_to_its_place(string text, Action<Assembler> before, string encoding)
    {
        int length = encoding.Split(' ').Length;
        for (int padding = 1; padding <= 5; padding++)
        {
            byte[] bytes = Emit(before, length, padding, out LiveSite site);
            string prefixes = string.Concat(Enumerable.Repeat("3e ", padding));
            int end = (int)(site.Address.Value % 64);
            Assert.True(prefixes + encoding == HexBytes.Format(bytes.AsSpan(end - padding - length, padding + length)),
                $"{text}, {padding}: {HexBytes.Format(bytes)}");
            Assert.Single(CapstoneReader.Disassemble(bytes.AsSpan(end - padding - length, padding + length).ToArray(), 0, 64));
        }
    }

    [Theory]
    [MemberData(nameof(Refusers))]
    public void What_can_take_no_prefix_is_followed_by_a_nop(string text, Action<Assembler> before)
    {
        var probe = new Assembler(64);
        before(probe);
        probe.AnonymousLabel();
        probe.ret();
        var writer = new Bytes();
        probe.Assemble(writer, 0x1000);
        int length = writer.Count - 1;
        const int Padding = 5;
        byte[] bytes = Emit(before, length, Padding, out LiveSite site);
        int end = (int)(site.Address.Value % 64);
        Assert.True("0f 1f 44 00 00" == HexBytes.Format(bytes.AsSpan(end - Padding, Padding)), $"{text}: {HexBytes.Format(bytes)}");
        Assert.Equal(writer.ToArray()[0], bytes[end - Padding - length]); // not all: a jump over the nop has another displacement
    }

    [Fact]
    public void Six_bytes_are_too_many()
    {
        byte[] bytes = Emit(static a => a.add(eax, ebx), 2, 6, out LiveSite site);
        int end = (int)(site.Address.Value % 64);
        Assert.Equal("01 d8 66 0f 1f 44 00 00", HexBytes.Format(bytes.AsSpan(end - 8, 8)));
    }

    [Fact]
    public void Labels_and_jumps_reach_an_instruction_at_its_prefixes()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Nops);
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        Label counted = a.CreateLabel();
        a.xor(eax, eax);
        a.mov(ecx, 7);
        a.nop(53); // 60 bytes so far
        a.Label(ref counted);
        a.add(eax, ecx);
        SiteTicket ticket = sites.Emit(a, code.First, 6, RegisterSet.None); // 62: moved to the next line
        a.dec(ecx);
        a.jne(counted);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites, out CodeLabels labels);

        Assert.Equal(0UL, block[ticket].Address.Value % 64);
        Assert.Equal("3e 3e 01 c8", HexBytes.Format(block.ToArray().AsSpan((int)(labels[counted] - block.Address), 4)));
        byte[] bytes = block.ToArray();
        Assert.Equal(0x75, bytes[^3]); // jne rel8; ret
        Assert.Equal(labels[counted] - block.Address, bytes.Length - 1 + (sbyte)bytes[^2]);
        Assert.Equal(28, LiveCode.Call(block));
        CapstoneReader.AssertWholeInstructions(block.ToArray(), block.Address.Value, 64, "loop");
    }

    /// <summary>A block whose site wants so many bytes before it, behind one instruction.</summary>
    private static byte[] Emit(Action<Assembler> before, int length, int padding, out LiveSite site)
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        const int Start = 48;
        a.nop(Start - padding - length);
        before(a);
        a.AnonymousLabel();
        SiteTicket ticket = sites.Emit(a, code.First, 8, RegisterSet.Rax, SitePlacement.None, SiteTraits.None, forwarding: false, Start);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        site = block[ticket];
        Assert.Equal(Start, (int)(site.Address.Value % 64));
        return block.ToArray();
    }

    private sealed class Bytes : CodeWriter
    {
        private readonly List<byte> _bytes = [];

        public int Count => _bytes.Count;

        public override void WriteByte(byte value) => _bytes.Add(value);

        public byte[] ToArray() => [.. _bytes];
    }
}
