using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Sites of settings among code of every kind: labels at its ends and where it is rewritten, variants.</summary>
public sealed class SettingEmitTests : IDisposable
{
    private readonly LiveCode _code = new();

    public void Dispose() => _code.Dispose();

    [Fact]
    public void A_variant_may_end_with_a_label()
    {
        using LivePatcher live = _code.Patcher();
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        static void Write(Assembler b, int number)
        {
            Label end = b.CreateLabel();
            b.mov(eax, number);
            b.cmp(eax, number);
            b.je(end);
            b.mov(eax, 100);
            b.Label(ref end);
        }

        sites.Variants(a, new SiteVariant(_code.Nops, static b => Write(b, 1)), new SiteVariant(_code.Direct, static b => Write(b, 2)));
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites);
        Assert.Equal(1, SettingCode.Run(block));
        live.Switch(_code.Direct);
        Assert.Equal(2, SettingCode.Run(block));
    }

    [Fact]
    public void A_label_that_waits_for_an_instruction_is_no_place_for_what_is_out_of_line()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        sites.Variants(a, new SiteVariant(_code.Nops, static b => b.nop()), new SiteVariant(_code.Direct, static b => b.nop()));
        Label end = a.CreateLabel();
        a.ret();
        a.Label(ref end);
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => _code.Arena.Emit(a, sites)).Diagnostic.Code);
        a.ret();
        Assert.Equal(1, _code.Arena.Emit(a, sites).SiteCount); // nothing of the variants was lost
    }

    [Fact]
    public void A_variant_out_of_line_may_hold_variants_of_an_emitter_before()
    {
        using LivePatcher live = _code.Patcher();
        using var other = new LivePatcher(_code.Arena);
        Backend one = Backend.Create("one", other.Layout, static _ => { });
        Backend two = Backend.Create("two", other.Layout, static _ => { });
        var a = new Assembler(64);
        SiteEmitter[] emitters = [new(other.Layout), new(_code.Layout)];
        emitters[1].Variants(
            a, new SiteVariant(_code.Nops, static b => b.mov(eax, 1)),
            new SiteVariant(_code.Direct, b => emitters[0].Variants(
                b, new SiteVariant(one, static c => c.mov(eax, 2)), new SiteVariant(two, static c => c.mov(eax, 3)))));
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, emitters, out _)[0];
        Assert.Equal(1, SettingCode.Run(block));
        live.Switch(_code.Direct);
        Assert.Equal(2, SettingCode.Run(block));
        other.Switch(two);
        Assert.Equal(3, SettingCode.Run(block));
        Assert.Same(two, other.Current);
    }

    [Fact]
    public void A_compressed_displacement_is_no_field()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        var constant = new CodeConstant("c");
        PatchException error = Assert.Throws<PatchException>(
            () => sites.Constant(a, constant, static b => b.vmovaps(zmm0, __[rdi + 64]))); // 62 f1 7c 48 28 47 01: 1 times 64
        Assert.Equal("PV8014", error.Diagnostic.Code);
        sites.Constant(a, constant, static b => b.vmovups(zmm0, __[rdi + 65])); // four bytes, as they are
        sites.Constant(a, constant, static b => b.mov(eax, __[rdi + 64]));
        Assert.Equal(2, sites.Count);
    }

    [Fact]
    public void A_constant_of_any_length_is_changed_live_without_wide_stores()
    {
        using var code = new LiveCode(atomic16: false);
        using var live = new LivePatcher(code.Arena);
        Assert.SkipWhen(code.Arena.Native.Barrier.IsZero, "guards need a barrier in native code");
        for (int offset = 0; offset < 64; offset++)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter();
            var constant = new CodeConstant("c", 7);
            for (int i = 0; i < offset; i++)
            {
                a.nop();
            }

            sites.Constant(a, constant, static b => b.mov(__qword_ptr[rsp - 0x10], int.MaxValue)); // 9 bytes
            sites.Constant(a, constant, static b => b.mov(__qword_ptr[rsp - 0x1000], int.MaxValue)); // 12 bytes
            a.mov(rax, __[rsp - 0x10]);
            a.ret();
            CodeBlock block = code.Arena.Emit(a, sites);
            Assert.Equal(7, SettingCode.Run(block));
            live.Apply(c => c.Set(constant, -5));
            Assert.Equal(-5, SettingCode.Run(block));
        }
    }

    [Theory]
    [InlineData("call")]
    [InlineData("jrcxz")]
    public void A_label_of_an_instruction_that_is_rewritten_is_where_it_begins(string what)
    {
        using LivePatcher live = _code.Patcher();
        var key = new StaticKey("key", enabled: true);
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        (Label on, Label far) = (a.CreateLabel(), a.CreateLabel());
        a.xor(ecx, ecx);
        sites.Branch(a, key, on);
        a.mov(eax, 1);
        a.ret();
        a.mov(eax, 2);
        a.Label(ref on);
        if (what == "call")
        {
            a.call((_code.Arena.Address + (1L << 34)).Value); // through a pointer behind the code; not run
        }
        else
        {
            a.jrcxz(far);
        }

        a.mov(eax, 3);
        a.ret();
        for (int i = 0; i < 200; i++)
        {
            a.int3();
        }

        a.Label(ref far);
        a.mov(eax, 4);
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites, out CodeLabels labels);
        Assert.Equal(labels[on], block[0].Target);
        byte[] code = block.ToArray();
        int offset = (int)(labels[on] - block.Address);
        Assert.Equal(what == "call" ? 0xff : 0xe3, code[offset]); // call [rip+disp32], jrcxz
        if (what == "jrcxz")
        {
            Assert.Equal(4, SettingCode.Run(block));
        }
    }

    [Fact]
    public void A_label_that_is_placed_twice_is_refused()
    {
        var key = new StaticKey("key");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label on = a.CreateLabel();
        Label copy = on;
        sites.Branch(a, key, on);
        a.Label(ref on);
        a.nop();
        a.Label(ref copy);
        a.ret();
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => _code.Arena.Emit(a, sites)).Diagnostic.Code);
    }
}
