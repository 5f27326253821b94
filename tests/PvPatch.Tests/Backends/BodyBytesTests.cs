using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Backends;

/// <summary>The bodies of all backends, byte for byte against the golden table.</summary>
public sealed class BodyBytesTests
{
    private static readonly string[] s_xenKernels = ["2.6.24", "2.6.30", "2.6.32", "3.6"];

    private static readonly GoldenTable s_table = GoldenTable.Load("bodies.txt");

    public static TheoryData<string> Backends => ["native", "xen", "lguest", "vmi"];

    [Theory]
    [MemberData(nameof(Backends))]
    public void Bodies_are_those_of_the_golden_table(string backend)
    {
        GoldenRow[] rows = [.. s_table.Rows.Where(r => r["backend"] == backend && r["slot"] != "save_fl_irq_disable helper")];
        Assert.NotEmpty(rows);
        foreach (GoldenRow row in rows)
        {
            Operation[] operations = [.. OperationsOf(row)];
            Assert.True(operations.Length > 0, row.Place);
            Assert.All(operations, o => CheckRow(row, o));
        }
    }

    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void No_body_is_without_a_golden_row(int bitness)
    {
        var known = s_table.Rows.Where(r => r.Int32("bits") == bitness).Select(r => $"{r["backend"]} {r["slot"]}").ToHashSet();
        OpsRegistry registry = StandardBackends.CreateRegistry(bitness, SlotTargets.None, new StandardBackendOptions
        {
            Xen = new XenOptions { DirectBodies = new XenDirectBodies { VcpuInfo = 0x6000, CheckEvents = 0x1000 } },
            Lguest = new LguestOptions { LguestData = 0x1000, InlineEnableAndRestore = true },
        });
        foreach (Backend backend in registry.Backends.Where(b => b.Name != "kvm"))
        {
            foreach (OpSlot slot in backend.Layout.Slots.Where(s => backend[s.Index].Body is not null))
            {
                Assert.Contains($"{backend.Name} {slot.Name}", known);
            }
        }
    }

    [Theory]
    [InlineData(32, "xen", "irq.irq_enable")]
    [InlineData(64, "xen", "irq.irq_enable")]
    [InlineData(64, "xen", "irq.restore_fl")]
    public void Calling_check_events_destroys_the_flags_only(int bitness, string backend, string slot)
    {
        var options = new XenOptions { DirectBodies = new XenDirectBodies { VcpuInfo = 0x6000, CheckEvents = 0x1000 } };
        OpsRegistry registry = StandardBackends.CreateRegistry(bitness, SlotTargets.None, new StandardBackendOptions { Xen = options });
        Assert.Equal(RegisterSet.Flags, Build(registry[backend][slot], CallConvention.CalleeSave, bitness).Destroys);
    }

    [Fact]
    public void Xen_without_per_cpu_data_names_it_without_a_segment()
    {
        var direct = new XenDirectBodies { VcpuInfo = 0xc04f6000, CheckEvents = 0xc0101230, PerCpu = false };
        Operation operation = XenBackend.Create(StandardLayout.I386, 32, SlotTargets.None, new XenOptions { DirectBodies = direct })[
            "irq.irq_disable"];

        // movb $1,0xc04f6001
        Assert.Equal([0xc6, 0x05, 0x01, 0x60, 0x4f, 0xc0, 0x01], Build(operation, CallConvention.CalleeSave, 32).Bytes.ToArray());
    }

    private static void CheckRow(GoldenRow row, Operation operation)
    {
        byte[] expected = row.Bytes("bytes");
        if (expected.Length == 0)
        {
            Assert.True(
                operation.Kind is OperationKind.Nop or OperationKind.Identity32 or OperationKind.Identity64, $"{row}: {operation.Kind}");
            return;
        }

        Assert.True(operation.Kind == OperationKind.Inline, $"{row}: {operation.Kind}");
        int bitness = row.Int32("bits");
        AssembledBody body = Build(operation, CallConvention.KernelSysV, bitness);
        byte[] bytes = new byte[body.Bytes.Length];
        Assert.True(CodeTemplate.Create(body, bytes.Length, NopStyle.Default(bitness))
            .TryWrite(row.OptionalNumber("site") ?? 0x1000, bytes), row.Place);
        Assert.True(expected.AsSpan().SequenceEqual(bytes), $"{row}: {Convert.ToHexString(bytes)}");
        Assert.True(body.UsesStack == (row["stack"] == "yes"), $"{row}: stack {body.UsesStack}");
        Assert.True((body.InstructionCount == 1) == (row["single"] == "yes"), $"{row}: {body.InstructionCount} instructions");
    }

    private static AssembledBody Build(Operation operation, CallConvention convention, int bitness)
    {
        Assert.True(
            BodyBuilder.TryBuild(operation.Body!, convention, bitness, out AssembledBody? body, out PatchDiagnostic? error), $"{error}");
        return body;
    }

    private static IEnumerable<Operation> OperationsOf(GoldenRow row)
    {
        int bitness = row.Int32("bits");
        string slot = row["slot"];
        OpsLayout layout = StandardLayout.For(bitness);
        if (slot == "irq.save_fl_irq_disable")
        {
            (layout, slot) = (KernelLayouts.WithoutTables, "save_fl_irq_disable");
        }

        return row["backend"] switch
        {
            "native" => [NativeBackend.Create(layout, bitness, SlotTargets.None, Native(row))[slot]],
            "xen" => FormsOf(row).Select(form => XenBackend.Create(layout, bitness, SlotTargets.None, Xen(row, form))[slot]),
            "lguest" => [LguestBackend.Create(layout, SlotTargets.None, Lguest(row))[slot]],
            "vmi" => [VmiBackend.Create(layout, SlotTargets.None, Vmi(row))[slot]],
            _ => throw row.Error("unknown backend"),
        };
    }

    private static NativeOptions Native(GoldenRow row) => new()
    {
        WideVcpuIsPreempted = row["eras"] == "6.1..6.12",
        SavedUserStackOffset = (int)(Reference(row, "old_rsp") ?? 0),
    };

    private static XenOptions Xen(GoldenRow row, XenDirectForm form) => new()
    {
        DirectBodies = new XenDirectBodies
        {
            VcpuInfo = Reference(row, "pending") ?? Reference(row, "mask")!.Value - 1,
            CheckEvents = Reference(row, "check_events") is ulong address ? new VirtualAddress(address) : null,
            Form = form,
        },
    };

    private static LguestOptions Lguest(GoldenRow row) =>
        new() { LguestData = Reference(row, "irq_enabled")!.Value, InlineEnableAndRestore = true };

    private static VmiOptions Vmi(GoldenRow row)
    {
        ulong[] calls = [.. References(row).Where(r => r.Name == "call").Select(r => r.Address)];
        return new VmiOptions
        {
            GetRelocation = call => row["references"] == "nop" ? new VmiRelocation(VmiRelocationKind.Nop, 0)
                : Reference(row, "jump") is ulong jump ? new VmiRelocation(VmiRelocationKind.JumpRel, jump)
                : new VmiRelocation(
                    VmiRelocationKind.CallRel, calls[^1] == calls[0] || call == VmiCall.GetInterruptMask ? calls[0] : calls[^1]),
        };
    }

    // A row holds for the forms of all kernels from its first era to its last.
    private static IEnumerable<XenDirectForm> FormsOf(GoldenRow row)
    {
        string[] eras = row["eras"].Split("..");
        (int first, int last) = (Array.IndexOf(s_xenKernels, eras[0]), Array.IndexOf(s_xenKernels, eras[1]));
        (string Kernel, XenDirectForm Form)[] forms =
            [("2.6.24", XenDirectForm.AndWord), ("2.6.32", XenDirectForm.StoreAndTest), ("3.6", XenDirectForm.StoreAndTestFixed)];
        return forms.Where(f => Array.IndexOf(s_xenKernels, f.Kernel) is int at && at >= first && at <= last).Select(f => f.Form);
    }

    private static ulong? Reference(GoldenRow row, string name)
    {
        foreach ((string found, ulong address) in References(row))
        {
            if (found == name)
            {
                return address;
            }
        }

        return null;
    }

    private static IEnumerable<(string Name, ulong Address)> References(GoldenRow row) =>
        row["references"].Split(',').Where(r => r.Contains('=', StringComparison.Ordinal)).Select(r => r.Split('='))
            .Select(p => (p[0], row.ParseNumber(p[1])));
}
