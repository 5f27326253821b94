using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

var ops = OpsLayout.Create(b => b.Table("mem", t => t.Slot("load32").Slot("trace")));
var fast = Backend.Create("fast", ops, b => b.Inline("mem.load32", a => a.mov(eax, __dword_ptr[rdi])).Nop("mem.trace"));

byte[] code = [0xff, 0x15, 0xfa, 0x0f, 0, 0, 0xff, 0x15, 0xfc, 0x0f, 0, 0, 0xc3]; // call [mem.load32]; call [mem.trace]; ret
var image = new CodeImage(0x400000, code); // your bytes, and the address they run at
var sites = SiteTable.Create(new(0x400000, 0, 6, RegisterSet.Rax), new(0x400006, 1, 6, RegisterSet.Rax));

PatchPlan plan = new PatchPlanner().Plan(image, sites, fast); // nothing written yet
Console.WriteLine(plan.Summary); // 1 inlined, 1 nop
plan.Apply(image); // mov eax,[rdi]; nop; nop; ret
plan.Revert(image); // bit for bit as it was
