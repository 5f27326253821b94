using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Btf;
using PvPatch.Linux.Elf;
using PvPatch.Ops;

namespace PvPatch.Linux.Kernel;

/// <summary>Reads the layout of a kernel's ops table out of its own type information (<c>.BTF</c>, struct paravirt_patch_template).</summary>
internal static class KernelLayoutReader
{
    private const string Section = ".BTF";

    // Slots that entry code leaves by a jump, as long as they existed (to 5.12); what the kernel's own patcher knew by number.
    private static readonly HashSet<string> s_jumps =
        ["cpu.iret", "cpu.irq_enable_sysexit", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret32", "cpu.usergs_sysret64"];

    // The patch hook itself (to 5.12): called as C, never through a site.
    private static readonly HashSet<string> s_data = ["init.patch", "patch"];

    public static bool TryRead(ElfImage elf, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        layout = null;
        if (!elf.TryGetSection(Section, out ElfSection? section))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutUnknown, "the kernel does not say how its ops table is ordered") with
            {
                Found = $"no section {Section}",
                Expected = "type information with struct paravirt_patch_template",
                Help = "Kernels built without CONFIG_DEBUG_INFO_BTF are not read yet.",
            };
            return false;
        }

        if (!BtfStructLayout.TryRead(elf.GetBytes(section), BtfStructLayout.PatchTemplate, out BtfStruct? template, out error, elf.Bitness))
        {
            error = error with { FileOffset = section.FileOffset + (error.FileOffset ?? 0) };
            return false;
        }

        return TryBuild(template, elf.Bitness, out layout, out error);
    }

    private static bool TryBuild(BtfStruct template, int bitness, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        layout = null;
        int word = bitness / 8;
        int next = 0;
        foreach (BtfMember member in template.Members)
        {
            if (member.Offset != next || member.Size != word || next / word > byte.MaxValue)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutUnknown, $"struct {template.Name} is not a row of at most 256 words") with
                {
                    Found = $"{member.Path}: {member.Size} bytes at {member.Offset}",
                    Expected = $"{word} bytes at {next}",
                };
                return false;
            }

            next += word;
        }

        CallingConvention ordinary = bitness == 64 ? CallingConvention.KernelSysV : CallingConvention.I386RegParm;
        try
        {
            layout = OpsLayout.Create(
                b =>
                {
                    foreach (IGrouping<string, BtfMember> table in template.Members.GroupBy(static m => TableOf(m.Path)))
                    {
                        b.Table(table.Key, t => AddSlots(t, table), ordinary);
                    }
                },
                template.Name);
        }
        catch (PatchException e)
        {
            error = e.Diagnostic;
            return false;
        }

        error = null;
        return true;
    }

    private static void AddSlots(OpsTableBuilder table, IEnumerable<BtfMember> members)
    {
        foreach (BtfMember member in members)
        {
            string name = member.Path[(TableOf(member.Path) is { Length: > 0 } prefix ? prefix.Length + 1 : 0)..];
            SlotKind kind = s_jumps.Contains(member.Path) ? SlotKind.Jump
                : s_data.Contains(member.Path) || !member.IsPointer ? SlotKind.Data
                : SlotKind.Call;
            table.Slot(name, kind, member.IsCalleeSave ? CallingConvention.CalleeSave : null);
        }
    }

    private static string TableOf(string path) => path.IndexOf('.', StringComparison.Ordinal) is int dot and > 0 ? path[..dot] : "";
}
