namespace PvPatch.Linux.BootText;

/// <summary>One record of the jump table.</summary>
/// <param name="Address">Link address of the site.</param>
/// <param name="Target">Where its jump goes.</param>
/// <param name="Key">The static key; its first 4 bytes are a count.</param>
/// <param name="IsInverted">Whether the site jumps while the key is off.</param>
internal readonly record struct JumpLabel(VirtualAddress Address, VirtualAddress Target, VirtualAddress Key, bool IsInverted)
{
    /// <summary>The size of a record in bytes.</summary>
    public const int Stride = 16;

    /// <summary>Reads a record: s32 site, s32 target, s64 key with two flags below, each relative to its own field.</summary>
    public static JumpLabel Read(TextTable table, int index)
    {
        int at = index * Stride;
        VirtualAddress key = table.Relative64(at + 8);
        return new JumpLabel(table.Relative(at), table.Relative(at + 4), key.Value & ~3UL, (key.Value & 1) != 0);
    }
}

/// <summary>Jump labels (static keys): <c>__jump_table</c>.</summary>
/// <remarks>
/// <code>
///   key on?  inverted?   site
///     no        no       nop
///     yes       no       jmp target
///     no        yes      jmp target
///     yes       yes      nop
///
///   size    the file has             nop                   jmp
///    2      66 90 or eb xx           66 90                 eb rel8
///    5      0f 1f 44 00 00 or e9 …   0f 1f 44 00 00        e9 rel32     5.10: the nop is that of the processor
/// </code>
/// A count other than 0 is on, also a negative one, which stands for the first switch while it goes on.
/// </remarks>
internal sealed class JumpLabels : ITextMechanism
{
    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.JumpLabel;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.JumpLabels).CountOf(JumpLabel.Stride);

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.JumpLabels);
        for (int i = 0; i < table.CountOf(JumpLabel.Stride); i++)
        {
            Apply(run, JumpLabel.Read(table, i));
        }
    }

    private static void Apply(TextRun run, in JumpLabel label)
    {
        if (!run.Text.TryGet(label.Address, 2, out ReadOnlySpan<byte> found))
        {
            run.ReportOutside(TextMechanism.JumpLabel, label.Address, 2);
            return;
        }

        bool isShort = !run.Kernel.Rules.RewritesJumpLabels && (found.SequenceEqual(BranchBytes.Nop2) || found[0] == BranchBytes.ShortJump);
        if (!isShort && !(run.Text.TryGet(label.Address, 5, out found)
            && (found[0] == BranchBytes.Jump || found.SequenceEqual(BranchBytes.Nop5))))
        {
            run.ReportUnexpected(TextMechanism.JumpLabel, label.Address, found, "a nop of 2 or 5 bytes, or a jump");
            return;
        }

        if (!run.IsData(TextMechanism.JumpLabel, label.Address, label.Key, sizeof(int)))
        {
            return;
        }

        if (!run.State.Keys.TryGetValue(label.Key, out int enabled))
        {
            run.LeaveOpen(label.Address, isShort ? 2 : 5, TextMechanism.JumpLabel);
        }
        else if ((enabled != 0) == label.IsInverted)
        {
            if (isShort)
            {
                run.Write(label.Address, BranchBytes.Nop2, TextMechanism.JumpLabel);
            }
            else
            {
                run.WriteNop5(label.Address, TextMechanism.JumpLabel);
            }
        }
        else if (!isShort)
        {
            run.WriteBranch(label.Address, BranchBytes.Jump, label.Target, TextMechanism.JumpLabel);
        }
        else
        {
            WriteShort(run, label);
        }
    }

    private static void WriteShort(TextRun run, in JumpLabel label)
    {
        long distance = label.Target - (label.Address + 2);
        if (distance is < sbyte.MinValue or > sbyte.MaxValue)
        {
            run.Findings.Add(PatchDiagnostic.Error(
                KernelDiagnosticCodes.TextOutOfReach, "jump-label: the target of a jump of 2 bytes is out of reach") with
            {
                Address = label.Address,
                Found = label.Target.ToString(),
                Expected = "an address within 128 bytes",
            });
            return;
        }

        run.Write(label.Address, [BranchBytes.ShortJump, (byte)distance], TextMechanism.JumpLabel);
    }
}
