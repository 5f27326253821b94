using PvPatch.Images;
using PvPatch.Ops;
using PvPatch.Planning;
using PvPatch.Plans;
using PvPatch.Sites;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests;

public sealed class SmokeTests
{
    [Fact]
    public void Design_sketch_works()
    {
        var ops = OpsLayout.Create(b => b.Table("mem", t => t.Slot("load32").Slot("store32").Slot("trace")));
        var fast = Backend.Create("fast", ops, b => b
            .Inline("mem.load32", a => a.mov(eax, __dword_ptr[rbx + rdi]))
            .Nop("mem.trace")
            .Call("mem.store32", 0x401000));
        byte[] code = new byte[64];
        for (int i = 0; i < 4; i++)
        {
            code[i * 8] = 0xff;
            code[i * 8 + 1] = 0x15;
            code[i * 8 + 6] = 0x66;
            code[i * 8 + 7] = 0x90;
        }

        byte[] before = [.. code];
        var image = new CodeImage(0x400000, code);
        var any = RegisterSet.All.Except(RegisterSet.Rbx);
        var sites = SiteTable.Create(
            new PatchSite(0x400000, 0, 8, any), new PatchSite(0x400008, 1, 6, any), new PatchSite(0x400010, 2, 8, any), new PatchSite(0x400018, 1, 8, RegisterSet.Rax));
        var plan = new PatchPlanner().Plan(image, sites, fast);
        Assert.Equal("1 inlined, 1 direct call, 1 nop, 1 left alone (ClobbersTooMuch)", plan.Summary.ToString());
        Assert.Equal(new ApplyResult(3, 1), plan.Apply(image));
        Assert.Equal("8b 04 3b 0f 1f 44 00 00", HexBytes.Format(code.AsSpan(0, 8)));
        Assert.Equal("e8 f3 0f 00 00 90", HexBytes.Format(code.AsSpan(8, 6)));
        Assert.Equal(new ApplyResult(0, 4), plan.Apply(image));
        plan.Revert(image);
        Assert.Equal(before, code);
    }
}
