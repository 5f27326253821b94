using PvPatch.Linux.Files;
using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>
/// A planner of one thing that rewrites text. It is given what others left, and writes what stands there afterwards. It keeps nothing
/// between runs.
/// </summary>
internal interface ITextMechanism
{
    /// <summary>Which one it is.</summary>
    public TextMechanism Kind { get; }

    /// <summary>Counts its sites in a kernel.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <returns>The number of records that name text; 0 where the kernel does not have the mechanism.</returns>
    public int Count(TextKernel kernel);

    /// <summary>
    /// Writes what the kernel writes. A site that the state does not decide is marked open; a record that can't be is a finding, and its
    /// site stays as it is.
    /// </summary>
    /// <param name="run">The text, the state, and where findings go.</param>
    public void Apply(TextRun run);
}

/// <summary>One prediction: the kernel, the state, the text as it stands so far, and the findings.</summary>
/// <param name="Kernel">The kernel.</param>
/// <param name="State">The state.</param>
/// <param name="Text">The text.</param>
/// <param name="Findings">The findings. An error among them means that there is no prediction.</param>
internal sealed record TextRun(TextKernel Kernel, BootState State, TextImage Text, DiagnosticList Findings)
{
    /// <summary>Writes bytes, or adds a finding where they leave the text.</summary>
    public void Write(VirtualAddress address, ReadOnlySpan<byte> bytes, TextMechanism owner)
    {
        if (!Text.TryWrite(address, bytes, owner))
        {
            ReportOutside(owner, address, bytes.Length);
        }
    }

    /// <summary>
    /// Writes an instruction of an opcode byte and a 32-bit distance, or adds a finding where the target is out of reach.
    /// </summary>
    public void WriteBranch(VirtualAddress address, byte opcode, VirtualAddress target, TextMechanism owner)
    {
        Span<byte> bytes = stackalloc byte[5];
        if (BranchBytes.TryMake(opcode, address, target, bytes))
        {
            Write(address, bytes, owner);
            return;
        }

        ReportOutOfReach(owner, address, target);
    }

    /// <summary>Adds a finding: a branch cannot go to its target.</summary>
    public void ReportOutOfReach(TextMechanism owner, VirtualAddress address, VirtualAddress target) =>
        Findings.Add(PatchDiagnostic.Error(
            KernelDiagnosticCodes.TextOutOfReach, $"{TextMechanisms.NameOf(owner)}: the target of a branch is out of reach") with
        {
            Address = address,
            Found = target.ToString(),
            Expected = "an address within 2 GiB",
        });

    /// <summary>Adds a finding: the kernel has sites of a mechanism, but not the symbol that tells them apart.</summary>
    public void ReportMissing(TextMechanism owner, string symbol) =>
        Findings.Add(PatchDiagnostic.Error(
            KernelDiagnosticCodes.TextSymbolMissing, $"{TextMechanisms.NameOf(owner)}: the kernel's symbol {symbol} is not known") with
        {
            Expected = symbol,
            Help = "Give a System.map of this kernel.",
        });

    /// <summary>Marks a site open and counts it: the state does not say what stands there.</summary>
    public void LeaveOpen(VirtualAddress address, int length, TextMechanism owner)
    {
        if (!Text.TryMarkOpen(address, length, owner))
        {
            ReportOutside(owner, address, length);
        }
    }

    /// <summary>
    /// The 5-byte nop of jump labels, ftrace and static calls; empty where the kernel chose it by processor and that is not known.
    /// </summary>
    public ReadOnlySpan<byte> Nop5 =>
        !Kernel.Rules.RewritesJumpLabels || State.Nops == NopStyle.P6 ? BranchBytes.Nop5
        : State.Nops == NopStyle.K8 ? BranchBytes.AtomicNop5
        : default;

    /// <summary>Writes the 5-byte nop, or marks the site open where it is not known.</summary>
    public void WriteNop5(VirtualAddress address, TextMechanism owner)
    {
        if (Nop5.IsEmpty)
        {
            LeaveOpen(address, 5, owner);
            return;
        }

        Write(address, Nop5, owner);
    }

    /// <summary>
    /// Adds a finding: a record names a place outside the text. Not of code in data that is written to, which is no text and is passed
    /// over: the kernel patches what kexec copies before it runs (relocate_kernel, in <c>.data</c> since 6.14).
    /// </summary>
    public void ReportOutside(TextMechanism owner, VirtualAddress address, int length)
    {
        if (Kernel.Elf.TryGetSectionAt(address, out ElfSection? section) && section.IsExecutable && section.Contains(address, length)
            && !TextImage.IsText(section))
        {
            return;
        }

        Findings.Add(PatchDiagnostic.Error(
            KernelDiagnosticCodes.TextRecordOutside, $"{TextMechanisms.NameOf(owner)}: a record names a place outside the text") with
        {
            Address = address,
            Found = $"{length} bytes",
            Expected = "a place in one executable section",
        });
    }

    /// <summary>Whether a record's key is in the kernel's data; adds a finding where not.</summary>
    public bool IsData(TextMechanism owner, VirtualAddress site, VirtualAddress key, int length)
    {
        bool isData = Kernel.IsData(key, length);
        if (!isData)
        {
            Findings.Add(PatchDiagnostic.Error(
                KernelDiagnosticCodes.TextRecordOutside,
                $"{TextMechanisms.NameOf(owner)}: a record names a key outside the kernel's data") with
            {
                Address = site,
                Found = key.ToString(),
                Expected = "an address in a section of data",
            });
        }

        return isData;
    }

    /// <summary>Adds a finding: a site holds what its mechanism does not patch.</summary>
    public void ReportUnexpected(TextMechanism owner, VirtualAddress address, ReadOnlySpan<byte> found, string expected) =>
        Findings.Add(PatchDiagnostic.Error(
            KernelDiagnosticCodes.TextSiteUnexpected, $"{TextMechanisms.NameOf(owner)}: a site holds something else than it must") with
        {
            Address = address,
            Found = HexBytes.Format(found),
            Expected = expected,
        });
}
