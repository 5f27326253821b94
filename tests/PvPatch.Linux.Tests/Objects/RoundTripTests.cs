using System.Diagnostics;
using PvPatch.Linux.Objects;
using PvPatch.Linux.Tests.Support;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Records;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Linux.Tests.Objects;

/// <summary>Assemble, link, read, plan, apply, run: the exit code of a program tells which code ran at its sites.</summary>
public sealed class RoundTripTests
{
    // Two sites that call through a table, one that calls directly. As built: 3 + 10 + 10 + 20 = 43.
    private const string Program64 = """
        .globl _start
        _start:
            mov $3, %eax
            pv_call ops, 0, PV_RAX|PV_FLAGS
            pv_call ops, 0, PV_RAX|PV_FLAGS, length=11
            pv_direct add_20, 1, PV_RAX|PV_FLAGS
            mov %eax, %edi
            mov $60, %eax
            syscall
        add_10: add $10, %eax
            ret
        add_20: add $20, %eax
            ret
        add_40: add $40, %eax
            ret
        .data
        ops: .quad add_10
        """;

    private const string Program32 = """
        .globl _start
        _start:
            mov $3, %eax
            pv_call ops, 0, PV_EAX|PV_FLAGS
            pv_call ops, 0, PV_EAX|PV_FLAGS, length=11
            pv_direct add_20, 1, PV_EAX|PV_FLAGS
            mov %eax, %ebx
            mov $1, %eax
            int $0x80
        add_10: add $10, %eax
            ret
        add_20: add $20, %eax
            ret
        .data
        ops: .long add_10
        """;

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Recorded_sites_are_patched_and_run(int bitness)
    {
        byte[] program = IncludeFile.Link(IncludeFile.Assemble(bitness == 64 ? Program64 : Program32, bitness), bitness);
        byte[] original = [.. program];
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? file, out PatchDiagnostic? error), error?.ToString());
        SiteRecords records = file.ReadRecords();
        Assert.Equal(43, Run(program, bitness));

        var layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("add").Slot("direct")));
        var options = new PlanOptions { SlotAddresses = records.SlotAddresses(2), SlotFunctions = records.SlotFunctions(2) };
        var inlined = Backend.Create("inlined", layout, static b => b.Inline("ops.add", static a => a.add(eax, 1)).Nop("ops.direct"));
        PatchPlan plan = new PatchPlanner().Plan(file.Code, records.Sites, inlined, options);
        Assert.Equal([PatchAction.Inline, PatchAction.Inline, PatchAction.Nop], plan.Select(static s => s.Action));
        plan.Apply(file.Code);
        Assert.Equal(5, Run(program, bitness));

        // The other way about, over the first plan: a call in place of each.
        VirtualAddress direct = records.SlotFunctions(2)[1];
        var called = Backend.Create(
            "called", layout, b => b.Call("ops.add", direct, destroys: RegisterSet.Rax | RegisterSet.Flags)
                .Inline("ops.direct", static a => a.add(eax, 5)));
        PatchPlan next = new PatchPlanner().Plan(file.Code, records.Sites, called, options with { Previous = plan });
        next.Apply(file.Code);
        Assert.Equal(48, Run(program, bitness));

        next.Revert(file.Code);
        Assert.Equal(original, program);
    }

    [Fact]
    public void A_direct_call_is_an_original_only_where_its_slot_is_said_to_call_it()
    {
        byte[] program = IncludeFile.Link(IncludeFile.Assemble(Program64, 64), 64);
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? file, out _));
        SiteRecords records = file.ReadRecords();
        var layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("add").Slot("direct")));
        var backend = Backend.Create("nops", layout, static b => b.Nop("ops.add").Nop("ops.direct"));
        var planner = new PatchPlanner();

        Assert.Equal(PatchReason.NotACall, planner.Plan(file.Code, records.Sites, backend)[2].Reason);

        VirtualAddress[] others = [VirtualAddress.Zero, records.SlotFunctions(2)[1] + 4]; // add_40, behind add eax, imm8 and ret
        var options = new PlanOptions { SlotFunctions = others };
        Assert.False(planner.TryPlan(file.Code, records.Sites, backend, options, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal((DiagnosticCodes.WrongSlotOperand, 2), (Assert.Single(diagnostics).Code, diagnostics[0].SiteIndex));
    }

    // As built: 10 + 1 + 4 = 15; tracing is off, and nobody is notified.
    private const string AllMechanisms = """
        .globl _start
        _start:
            xor %eax, %eax
            pv_call ops, 0, PV_RAX|PV_FLAGS
            pv_branch tracing, slow
        back:
            pv_branch fast, skip, likely=1, initial=1, size=2
            pv_static_call notify
        skip:
            pv_region native
            add $1, %eax
            pv_variant xen
            add $2, %eax
            test %eax, %eax
            jz 1f
            call add_20
        1:
            pv_end_region
            pv_region
            add $4, %eax
            pv_replacement 7
            call add_20
            pv_replacement 9, not=1
            add $4, %eax
            pv_end_region
            mov %eax, %edi
            mov $60, %eax
            syscall
        slow: add $30, %eax
            jmp back
        add_10: add $10, %eax
            ret
        add_20: add $20, %eax
            ret
        .globl add_40
        add_40: add $40, %eax
            ret
        .data
        ops: .quad add_10
        """;

    [Fact]
    public void All_mechanisms_are_changed_in_one_plan_and_run()
    {
        byte[] program = IncludeFile.Link(IncludeFile.Assemble(AllMechanisms, 64), 64);
        byte[] original = [.. program];
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? file, out PatchDiagnostic? error), error?.ToString());
        SiteRecords records = file.ReadRecords();
        Assert.Equal(15, Run(program, 64));

        var layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("add")));
        var xen = Backend.Create("xen", layout, static b => b.Nop("ops.add"));
        var native = Backend.Create("native", layout, static b => b.Inline("ops.add", static a => a.add(eax, 3)));
        VirtualAddress add40 = SymbolOf(program, "add_40");
        PatchPlan plan = records.Plan(
            file.Code, c => c.Use(xen).Enable("tracing").Target("notify", add40).WithFeatures(7, 9));
        Assert.Equal(5, plan.Count);
        plan.Apply(file.Code);
        Assert.Equal(30 + 40 + 2 + 20 + 20, Run(program, 64));
        Assert.True(plan.Verify(file.Code).IsPatched);

        // Over the first plan, other things at some of the sites; the rest goes on as it is, and all of it is taken back as one.
        PatchPlan next = records.Plan(
            file.Code, c => c.Use(native).Disable("tracing").ReturnZero("notify").WithFeatures(9), new PlanOptions { Previous = plan });
        next.Apply(file.Code);
        Assert.Equal(1 + 4, Run(program, 64));
        PatchPlan last = records.Plan(file.Code, static c => c.Disable("fast"), new PlanOptions { Previous = next });
        last.Apply(file.Code);
        Assert.Equal(3 + 1 + 4, Run(program, 64)); // jumps over the call that gives 0
        last.Revert(file.Code);
        Assert.Equal(original, program);

        PatchPlan features = records.Plan(file.Code, static c => c.WithFeatures());
        features.Apply(file.Code);
        Assert.Equal(15, Run(program, 64)); // not 9: the second replacement
        Assert.NotEqual(original, program);
    }

    // As built: 20 + 2 + 20 + 1 = 43.
    private const string Returning = """
        .globl _start
        _start:
            xor %ebx, %ebx
            mov $1, %edi
            call maybe
            add %eax, %ebx
            xor %edi, %edi
            call maybe
            add %eax, %ebx
            call tail
            add %eax, %ebx
            pv_multi_branch mode, "way0, , way2"
            add $1, %ebx
            jmp done
        way0: add $2, %ebx
            jmp done
        way2: add $4, %ebx
        done:
            EXIT
        maybe: test %edi, %edi
            mov $7, %eax
            pv_static_jcc nz, maybe, other
            mov $2, %eax
            ret
        tail: mov $5, %eax
            pv_static_jump tail, other
        other: mov $20, %eax
            ret
        """;

    [Theory]
    [InlineData(64, "mov %ebx, %edi; mov $60, %eax; syscall")]
    [InlineData(32, "mov $1, %eax; int $0x80")]
    public void Tail_calls_of_nothing_return_and_multiway_branches_go_each_way(int bitness, string exit)
    {
        string source = Returning.Replace("EXIT", exit, StringComparison.Ordinal);
        byte[] program = IncludeFile.Link(IncludeFile.Assemble(source, bitness), bitness);
        byte[] original = [.. program];
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? file, out PatchDiagnostic? error), error?.ToString());
        SiteRecords records = file.ReadRecords();
        Assert.Equal(43, Run(program, bitness));
        VirtualAddress other = records.StaticCalls[0].Target!.Value;
        PatchPlan? plan = null;
        foreach ((int exits, Action<RecordChanges> changes) in new (int, Action<RecordChanges>)[]
        {
            (7 + 2 + 5 + 2, static c => c.Target("maybe", null).Target("tail", null).Set("mode", 0)),
            (0 + 2 + 0 + 1, static c => c.ReturnZero("maybe").ReturnZero("tail").Set("mode", 1)),
            (7 + 2 + 0 + 4, static c => c.Target("maybe", null).Set("mode", 2)),
            (20 + 2 + 20 + 1, c => c.Target("maybe", other).Target("tail", other).Set("mode", null)),
        })
        {
            plan = records.Plan(file.Code, changes, new PlanOptions { Previous = plan });
            plan.Apply(file.Code);
            Assert.Equal(exits, Run(program, bitness));
            Assert.True(plan.Verify(file.Code).IsPatched);
            plan = records.Plan(file.Code, changes, new PlanOptions { Previous = plan }); // the same once more
        }

        Assert.Equal(original, program);
        Assert.False(records.TryPlan(file.Code, static c => c.Set("mode", 3), null, out _, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal(DiagnosticCodes.RecordUnfit, found[0].Code);
        Assert.False(records.TryPlan(file.Code, static c => c.Set("mood", 1), null, out _, out found));
        Assert.Equal((DiagnosticCodes.RecordNameUnknown, "Did you mean \"mode\"?"), (found[0].Code, found[0].Help));

        // Without the plan before, what was put there is known all the same.
        records.Plan(file.Code, static c => c.Target("maybe", null).ReturnZero("tail").Set("mode", 2)).Apply(file.Code);
        records.Plan(file.Code, c => c.Target("maybe", other).Target("tail", other).Set("mode", null)).Apply(file.Code);
        Assert.Equal(original, program);
    }

    [Fact]
    public void What_records_can_not_do_is_told_and_nothing_is_planned()
    {
        byte[] program = IncludeFile.Link(IncludeFile.Assemble(AllMechanisms, 64), 64);
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? file, out _));
        SiteRecords records = file.ReadRecords();
        PatchDiagnostic Refused(Action<RecordChanges> changes)
        {
            Assert.False(records.TryPlan(file.Code, changes, null, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
            return diagnostics[0];
        }

        PatchDiagnostic unknown = Refused(static c => c.Enable("tracin"));
        Assert.Equal((DiagnosticCodes.RecordNameUnknown, "Did you mean \"tracing\"?"), (unknown.Code, unknown.Help));
        Assert.Equal(DiagnosticCodes.RecordNameUnknown, Refused(static c => c.ReturnZero("tracing")).Code);
        Assert.Equal(DiagnosticCodes.RecordUnfit, Refused(static c => c.Target("notify", 0x7000_0000_0000)).Code);
        Assert.Throws<ArgumentOutOfRangeException>(() => records.Plan(file.Code, static c => c.Target("notify", VirtualAddress.Zero)));

        // A key's site that holds something else.
        StaticKeyRecord site = Assert.Single(records.StaticKeys, static r => r.Key == "tracing");
        file.Code.GetBytes(site.Address, 1)[0] = 0xcc;
        PatchDiagnostic found = Refused(static c => c.Enable("tracing"));
        Assert.Equal((DiagnosticCodes.UnknownBytes, site.Address), (found.Code, found.Address));

        // What was laid down in a region is gone when another variant was put there and nobody says what it replaced.
        file.Code.GetBytes(site.Address, 1)[0] = 0x0f;
        var layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("add")));
        var xen = Backend.Create("xen", layout, static b => b.Nop("ops.add"));
        records.Plan(file.Code, c => c.Use(xen)).Apply(file.Code);
        var native = Backend.Create("native", layout, static b => b.Nop("ops.add"));
        Assert.Contains(Refused(c => c.Use(native)).Code, (string[])[DiagnosticCodes.RecordUnfit, DiagnosticCodes.UnknownBytes]);
    }

    private static VirtualAddress SymbolOf(byte[] program, string name)
    {
        using var folder = new TestFolder();
        string listing = System.Text.Encoding.ASCII.GetString(Tools.Pipe([], "nm", [folder.File("program", program)]));
        string line = listing.Split('\n').Single(l => l.EndsWith(" " + name, StringComparison.Ordinal));
        return ulong.Parse(line.AsSpan(0, 16), System.Globalization.NumberStyles.HexNumber, System.Globalization.CultureInfo.InvariantCulture);
    }

    private static int Run(byte[] program, int bitness)
    {
        Requirement.That(OperatingSystem.IsLinux() && System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture
            == System.Runtime.InteropServices.Architecture.X64, "programs of x86-64 Linux are run");
        using var folder = new TestFolder();
        string path = folder.File("program", program);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }

        try
        {
            using Process process = Process.Start(path);
            process.WaitForExit();
            return process.ExitCode;
        }
        catch (System.ComponentModel.Win32Exception) when (bitness == 32)
        {
            Requirement.Missing("this system runs no 32-bit programs");
            throw;
        }
    }
}
