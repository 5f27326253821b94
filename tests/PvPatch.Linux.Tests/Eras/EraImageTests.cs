using System.Globalization;
using System.Text;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// Makes, from the record of each era, images with what the record claims, assembled and linked by binutils, and looks which era they are
/// found to be of. What a record leaves open is random; the seed is printed.
/// </summary>
public sealed class EraImageTests(ITestOutputHelper output)
{
    private const int Rounds = 3;

    /// <summary>A form as source; W stands for the slot's word.</summary>
    private static readonly (SiteShapes Shape, int Bits, string Source)[] s_forms =
    [
        (SiteShapes.Saves10, 32, "push %ecx; push %edx; call *W; pop %edx; pop %ecx"),
        (SiteShapes.TwoCalls, 32, "push %ecx; push %edx; call *W; push %eax; call *W; pop %eax; pop %edx; pop %ecx"),
        (SiteShapes.Saves11, 32, "push %ecx; push %edx; call *%cs:W; pop %edx; pop %ecx"),
        (SiteShapes.Saves13, 32, "push %eax; push %ecx; push %edx; call *%cs:W; pop %edx; pop %ecx; pop %eax"),
        (SiteShapes.Saves15, 32, "push %eax; push %edi; push %ecx; push %edx; call *%cs:W; pop %edx; pop %ecx; pop %edi; pop %eax"),
        (SiteShapes.SavesResult, 32, "push %edi; push %edx; call *%cs:W; pop %edx; pop %edi"),
        (SiteShapes.SavesResult, 32, "push %eax; push %edi; push %edx; call *%cs:W; pop %edx; pop %edi; pop %eax"),
        (SiteShapes.SavesRdi, 64, "push %rdi; call *W(%rip); pop %rdi"),
        (SiteShapes.Absolute26, 64, "push %rax; push %rdi; push %rcx; push %rdx; call *%cs:W; pop %rdx; pop %rcx; pop %rdi; pop %rax"),
        (SiteShapes.Saves32, 64,
            "push %rax; push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11; call *W(%rip); pop %r11; "
            + "pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax"),
        (SiteShapes.Absolute7, 64, "call *W"),
        (SiteShapes.SavesResult, 64, "push %rax; call *W(%rip); pop %rax"),
    ];

    public static TheoryData<string, int> All
    {
        get
        {
            var data = new TheoryData<string, int>();
            foreach (KernelEra era in KernelEra.All.Where(static e => e.Source == SiteSource.ParaInstructions))
            {
                data.Add(era.Name, 32);
                if (!era.Is32BitOnly)
                {
                    data.Add(era.Name, 64);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(All))]
    public void An_image_with_all_that_a_record_claims_is_found_to_be_of_that_era(string name, int bits)
    {
        KernelEra era = Era(name);
        KernelEra expected = era.IsReadAsNext ? KernelEra.All[KernelEra.All.ToList().IndexOf(era) + 1] : era;
        Random random = Seeded();
        for (int i = 0; i < Rounds; i++)
        {
            (KernelEra? found, PatchDiagnostic? error) = Detect(Kernel(era, bits, random, everyForm: true), symbols: true);
            Assert.True(found is not null, error?.ToString());
            Assert.Equal(expected, found);
        }
    }

    [Theory]
    [MemberData(nameof(All))]
    public void An_image_with_some_of_what_a_record_claims_is_not_taken_for_one_of_another_era(string name, int bits)
    {
        KernelEra era = Era(name);
        KernelEra expected = era.IsReadAsNext ? KernelEra.All[KernelEra.All.ToList().IndexOf(era) + 1] : era;
        Random random = Seeded();
        for (int i = 0; i < Rounds; i++)
        {
            (KernelEra? found, PatchDiagnostic? error) = Detect(Kernel(era, bits, random, everyForm: false), symbols: random.Next(2) == 0);
            Assert.True(found is null ? error!.Expected!.Split(" or ").Contains(expected.Name) : found == expected,
                $"{expected} was expected, not {found}: {error}");
        }
    }

    [Fact]
    public void Direct_calls_among_the_alternatives_are_of_the_newest_era_whatever_the_slots()
    {
        ElfImage elf = ElfImage.Read(SyntheticKernel.WithDirectCall().Build());
        Assert.True(KernelEraDetector.TryFindSource(elf, out SiteSource source, out PatchDiagnostic? error), error?.ToString());
        Random random = Seeded();
        OpsLayout layout = Layout(KernelEra.All[random.Next(KernelEra.All.Count)], 64, random);
        Assert.True(KernelEraDetector.TryDetect(elf, source, layout, null, null, out KernelEra? era, out error), error?.ToString());
        Assert.Equal(KernelEra.Linux612, era);
    }

    private Random Seeded()
    {
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        return new Random(seed);
    }

    private static KernelEra Era(string name) =>
        KernelEra.TryGet(name, out KernelEra? era) ? era : throw new InvalidOperationException(name);

    private static (KernelEra? Era, PatchDiagnostic? Error) Detect(EraKernel kernel, bool symbols)
    {
        ElfImage elf = kernel.Link(symbols: symbols);
        Assert.True(KernelEraDetector.TryFindSource(elf, out SiteSource source, out PatchDiagnostic? error), error?.ToString());
        Assert.True(SiteEvidence.TryRead(elf, elf.ToCode(), out SiteEvidence? evidence, out error), error?.ToString());
        KernelSymbols? own = KernelSymbols.TryFromImage(elf, out KernelSymbols? read, out _) ? read : null;
        Assert.Equal(symbols, own is not null);
        return KernelEraDetector.TryDetect(elf, source, kernel.Layout, evidence, own, out KernelEra? era, out error)
            ? (era, null) : (null, error);
    }

    private static EraKernel Kernel(KernelEra era, int bits, Random random, bool everyForm)
    {
        OpsLayout layout = Layout(era, bits, random);
        bool wordByWord = era.Placement == SlotPlacement.WordByWord;
        string? table = era.Placement == SlotPlacement.TableByTable ? null : era.HasTables == true ? "pv_ops" : "paravirt_ops";
        OpSlot[] called = [.. layout.Slots.Where(static s => s.Kind == SlotKind.Call)];
        int word = bits / 8;
        string WordOf(OpSlot slot) => wordByWord ? $"words+{4 * (20 - (2 * slot.Index))}" // in no order that one table could have
            : table is not null ? $"{table}+{word * slot.Index}"
            : $"pv_{slot.Name.Split('.')[0]}_ops+{word * (slot.Index - layout.Tables.Single(t => t.Slots.Contains(slot)).Slots[0].Index)}";

        // All forms a record claims, or a random part with one of each kind that every image of the era has.
        List<(SiteShapes Shape, int Bits, string Source)> possible = [
            .. s_forms.Where(f => f.Bits == bits && (era.PossibleShapes & f.Shape) != 0)];
        List<(SiteShapes Shape, int Bits, string Source)> forms = everyForm ? [.. possible] : [.. possible.Where(_ => random.Next(3) == 0)];
        if ((era.NecessaryShapes(bits) & SiteShapes.AnySave) != 0)
        {
            forms.AddRange(random.GetItems([.. possible.Where(static f => f.Shape is not SiteShapes.Absolute26)], 1));
        }

        forms.AddRange(possible.Where(f => (era.NecessaryShapes(bits) & f.Shape) != 0));
        var sites = new StringBuilder("type | clobbers | original\n");
        foreach ((SiteShapes shape, _, string source) in forms)
        {
            Add(shape == SiteShapes.TwoCalls
                ? called.First(static s => s.ShortName == "save_fl_irq_disable") : random.GetItems(called, 1)[0], source);
        }

        // Most sites are calls and nothing else; every type takes part, so that words that lie one by one are seen to.
        foreach (OpSlot slot in called)
        {
            Add(slot, bits == 64 ? (era.PossibleShapes & SiteShapes.Absolute7) != 0 && random.Next(2) == 0
                ? "call *W" : "call *W(%rip)" : "call *W");
        }

        string[] functions =
        [
            .. era.Symbols.Select(static s => $"{s}: ret"),
            .. era.TestsClobbers is bool tests ? [$"paravirt_patch_call: {(tests ? "not %eax; ret" : "mov %eax, %edx; ret")}",
                "behind: not %eax; ret"] : Array.Empty<string>(),
        ];
        return new EraKernel
        {
            Bits = bits,
            Layout = layout,
            OneTable = table,
            Sites = sites.ToString(),
            More = string.Join('\n', functions),
            Data = wordByWord ? "words: .zero 96" : null,
        };

        void Add(OpSlot slot, string source) =>
            sites.Append(
                CultureInfo.InvariantCulture, $"{slot.Index} | 1 | {source.Replace("W", WordOf(slot), StringComparison.Ordinal)}\n");
    }

    /// <summary>A random order of slots among those that the record allows.</summary>
    private static OpsLayout Layout(KernelEra era, int bits, Random random)
    {
        if (era.Placement == SlotPlacement.WordByWord)
        {
            return EraLayouts.Known("2.6.20-i386");
        }

        var slots = new List<string>(era.Slots.Select(static s => s.EndsWith('.') ? s + "spin_lock" : s));
        bool hasTables = era.HasTables != false;
        if (hasTables)
        {
            slots.AddRange(["cpu.clts", "irq.save_fl", "irq.irq_disable", "mmu.set_pte", "time.sched_clock"]);
            string[] maybe = [bits == 64 ? "cpu.irq_enable_syscall_ret" : "cpu.made_up", "cpu.usergs_sysret64", "cpu.set_iopl_mask",
                "lock.queued_spin_unlock", "lock.spin_lock"];
            slots.AddRange(maybe.Where(s => random.Next(2) == 0 && !slots.Contains(s)
                && !era.AbsentSlots.Any(a => s == a || (a.EndsWith('.') && s.StartsWith(a, StringComparison.Ordinal)))));
        }

        string[] tables = hasTables ? ["cpu.", "mmu.", "time."] : [""];
        slots.AddRange(Enumerable.Range(0, random.Next(8, 40)).Select(i => $"{tables[i % tables.Length]}made_up_{i}"));
        bool calleeSave = era.HasCalleeSave ?? random.Next(2) == 0;
        IEnumerable<string> lines = slots.GroupBy(static s => s[..(s.IndexOf('.', StringComparison.Ordinal) + 1)])
            .OrderBy(_ => random.Next())
            .SelectMany(g => g.OrderBy(_ => random.Next()))
            .Select(s => s == "irq.save_fl" && calleeSave ? s + "*" : s == "init.patch" ? s + " data" : s);
        return EraLayouts.Read($"bits {bits}\n{string.Join('\n', lines)}\n", "made");
    }
}
