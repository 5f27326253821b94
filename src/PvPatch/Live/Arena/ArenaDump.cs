using System.Globalization;
using System.Text;
using Iced.Intel;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>A stretch of an arena as assembly, with what is known of each address behind it.</summary>
internal static class ArenaDump
{
    private const int BytesColumn = 15 * 3;

    public static string Format(CodeArena arena, VirtualAddress address, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        if (!arena.Memory.IsCommittedCode(address, length))
        {
            throw new ArgumentOutOfRangeException(nameof(address), address, "the stretch is not inside the arena's committed code");
        }

        byte[] code = arena.Memory.Span(address, length).ToArray();
        Dictionary<VirtualAddress, LiveSite> sites = SitesIn(arena, address, length);
        var decoder = Iced.Intel.Decoder.Create(64, code, address.Value);
        var formatter = new IntelFormatter(
            new FormatterOptions { SpaceAfterOperandSeparator = true, HexPrefix = "0x", HexSuffix = null, RipRelativeAddresses = true });
        var text = new StringBuilder();
        while (decoder.IP < address.Value + (ulong)length)
        {
            decoder.Decode(out Instruction instruction);
            var line = new StringOutput();
            formatter.Format(instruction, line);
            ReadOnlySpan<byte> bytes = code.AsSpan((int)(instruction.IP - address.Value), instruction.Length);
            text.Append(CultureInfo.InvariantCulture,
                $"{instruction.IP:x12}  {HexBytes.Format(bytes).PadRight(BytesColumn)}{line.ToStringAndReset()}");
            Annotate(text, arena, instruction, sites);
            text.Append('\n');
        }

        return text.ToString();
    }

    private static Dictionary<VirtualAddress, LiveSite> SitesIn(CodeArena arena, VirtualAddress address, int length)
    {
        var sites = new Dictionary<VirtualAddress, LiveSite>();
        foreach (CodeBlock block in arena.Blocks)
        {
            if (block.Address + block.Length <= address || block.Address >= address + length)
            {
                continue;
            }

            for (int i = 0; i < block.SiteCount; i++)
            {
                sites[block[i].Address] = block[i];
            }
        }

        return sites;
    }

    private static void Annotate(
        StringBuilder text, CodeArena arena, in Instruction instruction, Dictionary<VirtualAddress, LiveSite> sites)
    {
        string separator = "  ; ";
        void Add(string note)
        {
            text.Append(separator).Append(note);
            separator = ", ";
        }

        if (sites.TryGetValue(instruction.IP, out LiveSite site))
        {
            Add($"site {site.Name} {site.Class} {site.State} {site.Form}{(site.HasForwarding ? " forwarding" : "")}");
        }

        if (arena.Islands.Find(instruction.IP) is var (owner, start) && start.Value == instruction.IP)
        {
            Add($"island of the site at {owner}");
        }

        if (arena.Arguments.TryFindStub(instruction.IP, out owner))
        {
            Add($"argument of the site at {owner}");
        }

        if (instruction.Code == Code.Ud2 && arena.TryFindTrap(instruction.IP, out OpSlot? trapped))
        {
            Add($"trap of {trapped}");
        }

        if (instruction.IsIPRelativeMemoryOperand && SlotAt(arena, instruction.IPRelativeMemoryAddress) is string slot)
        {
            Add(slot);
        }

        if (instruction.FlowControl is FlowControl.Call or FlowControl.UnconditionalBranch
            && arena.Islands.TryFindSite(instruction.NearBranchTarget, out _))
        {
            Add(arena.Arguments.TryFindStub(instruction.NearBranchTarget, out _) ? "to argument" : "to island");
        }
    }

    private static string? SlotAt(CodeArena arena, VirtualAddress address)
    {
        foreach (SlotTable slots in arena.SlotTables)
        {
            long distance = address - slots.Address;
            if (distance >= 0 && distance < 8L * slots.Layout.Count)
            {
                int slot = (int)(distance / 8);
                return $"slot {slots.Layout[slot]} = {slots[slot]}";
            }
        }

        return null;
    }
}
