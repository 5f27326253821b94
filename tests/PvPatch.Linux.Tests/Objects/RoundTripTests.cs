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
