using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Eras;

/// <summary>The eras an image with a site table can be of: all of them, less those that each thing found in it rules out.</summary>
internal sealed class EraCandidates
{
    private static readonly KernelEra[] s_to2629 =
        [KernelEra.Linux2620, KernelEra.Linux2621, KernelEra.Linux2622, KernelEra.Linux2623, KernelEra.Linux2624, KernelEra.Linux2625, KernelEra.Linux2627];

    private static readonly KernelEra[] s_to512 =
    [
        .. s_to2629, KernelEra.Linux2630, KernelEra.Linux2630Stable, KernelEra.Linux42, KernelEra.Linux418Backports, KernelEra.Linux420, KernelEra.Linux510,
    ];

    private static readonly KernelEra[] s_2630To512 = [.. s_to512.Except(s_to2629)];

    private readonly HashSet<KernelEra> _eras = [.. s_to512, KernelEra.Linux61];
    private readonly List<string> _found = [];

    /// <summary>What is left, oldest first.</summary>
    public IReadOnlyList<KernelEra> Eras => [.. KernelEra.All.Where(_eras.Contains)];

    /// <summary>What was found, for a message.</summary>
    public string Found => string.Join("; ", _found);

    /// <summary>How the slots lie, by symbols and else by whether all sites agree on one table.</summary>
    public static SlotPlacement PlacementOf(SiteEvidence evidence, KernelSymbols? symbols)
    {
        bool Has(string name) => symbols is not null && symbols.TryGetAddress(name, out _);
        if (Has("pv_ops"))
        {
            return SlotPlacement.OneTable;
        }

        if (Has("pv_cpu_ops") || Has("pv_irq_ops") || Has("pv_mmu_ops"))
        {
            return SlotPlacement.TableByTable;
        }

        if ((evidence.Shapes & (SiteShapes.TwoCalls | SiteShapes.Saves11)) != 0)
        {
            return SlotPlacement.WordByWord;
        }

        // One record in a hundred may lie. With several tables the sites of the largest are far from being all.
        evidence.Vote(static type => type, out _, out int voices, out int of);
        return (of - voices) * 100 <= of ? SlotPlacement.OneTable
            : evidence is { Bitness: 32, HighestType: <= 6 } && AllTypesHaveAWord(evidence) ? SlotPlacement.WordByWord
            : SlotPlacement.TableByTable;
    }

    public void Placement(SlotPlacement placement) => Keep(placement switch
    {
        SlotPlacement.OneTable => "one ops table",
        SlotPlacement.TableByTable => "several ops tables",
        _ => "a word for each type of site",
    }, era => era.Placement == placement);

    public void Sites(SiteEvidence evidence)
    {
        if (evidence.Bitness == 64)
        {
            Keep("64 bits", static e => !(e == KernelEra.Linux2620 || e == KernelEra.Linux2621 || e == KernelEra.Linux2622 || e == KernelEra.Linux2623 || e == KernelEra.Linux2624));
        }

        SiteShapes shapes = evidence.Shapes;
        KeepIf(shapes, SiteShapes.Saves10, "sites of 10 bytes that save ecx and edx", s_to2629);
        KeepIf(shapes, SiteShapes.TwoCalls | SiteShapes.Saves11, "sites as only 2.6.20 and 2.6.21 have them", KernelEra.Linux2620, KernelEra.Linux2621);
        KeepIf(shapes, SiteShapes.Saves13, "sites of 13 bytes that save eax, ecx and edx", KernelEra.Linux2622, KernelEra.Linux2623, KernelEra.Linux2624);
        KeepIf(shapes, SiteShapes.Saves15, "sites of 15 bytes that save four registers", KernelEra.Linux2625, KernelEra.Linux2627);
        KeepIf(shapes, SiteShapes.SavesRdi, "sites of 8 bytes that save rdi", KernelEra.Linux2625, KernelEra.Linux2627);
        KeepIf(shapes, SiteShapes.Absolute26, "assembly sites through absolute addresses", KernelEra.Linux2625);
        KeepIf(shapes, SiteShapes.Saves32, "sites of 32 bytes that save nine registers", KernelEra.Linux2627);
        KeepIf(shapes, SiteShapes.Absolute7, "calls of 7 bytes through absolute addresses", s_2630To512);
        KeepIf(shapes, SiteShapes.SavesResult, "sites that save the result register only, or hold a bare swapgs", s_2630To512);
        if ((shapes & SiteShapes.AnySave) == 0)
        {
            Keep("no site that saves registers", static e => !s_to2629.Contains(e)); // until 2.6.29 every site of cli did
        }

        if (evidence.Bitness == 64 && (shapes & SiteShapes.Absolute7) == 0)
        {
            Keep("no call of 7 bytes", static e => !s_2630To512.Contains(e));
        }
    }

    public void Layout(OpsLayout layout)
    {
        bool Has(string slot) => layout.TryGetSlot(slot, out _);
        bool multi = layout.Tables.Count > 1;
        Keep($"layout {layout.Name}", era =>
            (era.Placement == SlotPlacement.WordByWord) == Has("save_fl_irq_disable")
            && multi == (Index(era) >= Index(KernelEra.Linux2624))
            && (!multi || Has("init.patch") == (Index(era) <= Index(KernelEra.Linux510)))
            && (!Has("irq.save_fl") || layout["irq.save_fl"].Convention == CallConvention.CalleeSave == (Index(era) >= Index(KernelEra.Linux2630)))
            && (era != KernelEra.Linux2624 && era != KernelEra.Linux2625 || !HasTable(layout, "lock"))
            && (era != KernelEra.Linux2627 || HasTable(layout, "lock"))
            && (!Has("cpu.irq_enable_syscall_ret") || era == KernelEra.Linux2625)
            && (!Has("cpu.usergs_sysret64") || Index(era) >= Index(KernelEra.Linux2627))
            && ((era != KernelEra.Linux42 && era != KernelEra.Linux418Backports) || Has("lock.queued_spin_unlock"))
            && ((era != KernelEra.Linux2630 && era != KernelEra.Linux2630Stable) || !Has("lock.queued_spin_unlock"))
            && (era != KernelEra.Linux420 || Has("cpu.set_iopl_mask"))
            && (era != KernelEra.Linux510 || !Has("cpu.set_iopl_mask")));
    }

    public void Symbols(ElfImage elf, KernelSymbols? symbols)
    {
        // The same results, so there is nothing to ask.
        _eras.Remove(_eras.Contains(KernelEra.Linux2621) ? KernelEra.Linux2620 : KernelEra.Linux2621);
        if (symbols is null)
        {
            return;
        }

        // The patcher of 2.6.23 writes through text_poke, which 2.6.22 has not.
        bool poke = symbols.TryGetAddress("text_poke", out _);
        Keep(poke ? "text_poke" : "no text_poke", era => era != (poke ? KernelEra.Linux2622 : KernelEra.Linux2623));
        if (symbols.TryGetAddress("pv_lock_ops", out _))
        {
            Keep("pv_lock_ops", static e => e != KernelEra.Linux2624 && e != KernelEra.Linux2625);
        }

        if (TestsClobbers(elf, symbols) is bool tests)
        {
            Keep(tests ? "a patcher that looks at clobbers" : "a patcher that does not look at clobbers", era => tests
                ? era != KernelEra.Linux2630Stable && era != KernelEra.Linux418Backports
                : era != KernelEra.Linux2630 && era != KernelEra.Linux42);
        }
    }

    /// <summary>The place of an era in time.</summary>
    private static int Index(KernelEra era)
    {
        int index = 0;
        while (KernelEra.All[index] != era)
        {
            index++;
        }

        return index;
    }

    private static bool HasTable(OpsLayout layout, string name) => layout.Tables.Any(t => t.Name == name && t.Slots.Count > 0);

    private static bool AllTypesHaveAWord(SiteEvidence evidence)
    {
        for (int type = 0; type <= evidence.HighestType; type++)
        {
            evidence.Vote(t => t == type ? 0 : -1, out _, out int voices, out int of);
            if (voices != of)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>
    /// Whether the kernel's own patcher weighs clobbers: it does so by "what the target destroys and not what the site allows", so there is a
    /// complement in paravirt_patch_call where there is the test.
    /// </summary>
    private static bool? TestsClobbers(ElfImage elf, KernelSymbols symbols)
    {
        const int Longest = 256;
        if (!symbols.TryGetAddress("paravirt_patch_call", out VirtualAddress function) || !elf.TryGetSectionAt(function, out ElfSection? section) || !section.IsExecutable)
        {
            return null;
        }

        ulong length = Math.Min(Longest, section.Size - (function.Value - section.Address.Value));
        if (!elf.TryGetBytes(function, (int)length, out Memory<byte> code))
        {
            return null;
        }

        var decoder = Decoder.Create(elf.Bitness, code.ToArray(), function.Value);
        while (decoder.IP - function.Value < length && (decoder.IP == function.Value || symbols.FindAt(decoder.IP).Count == 0))
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.Mnemonic is Mnemonic.Not or Mnemonic.Andn)
            {
                return true;
            }
        }

        return false;
    }

    private void KeepIf(SiteShapes shapes, SiteShapes any, string what, params ReadOnlySpan<KernelEra> eras)
    {
        if ((shapes & any) == 0)
        {
            return;
        }

        KernelEra[] kept = eras.ToArray();
        Keep(what, kept.Contains);
    }

    private void Keep(string what, Func<KernelEra, bool> predicate)
    {
        _found.Add(what);
        _eras.RemoveWhere(era => !predicate(era));
    }
}
