using Iced.Intel;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Tool.Revert;

/// <summary>
/// Holds a plan from a file against the image it was taken back on. A plan file is input like any other: whoever writes it says which bytes go where.
/// What stands in the image afterwards must therefore be a kernel that was never patched, and the plan one of that kernel: the same sites as its table
/// has, none more and none fewer, and at each site that was changed a call or jump through the word of the site's own slot.
/// </summary>
internal static class PlanCheck
{
    private const string SwapGs = "cpu.swapgs"; // the one site that kernels write without a call: SWAPGS_UNSAFE_STACK

    /// <summary>Checks a plan; the image is in memory only, and nothing of it was written.</summary>
    /// <param name="stored">The plan.</param>
    /// <param name="planPath">The plan's file.</param>
    /// <param name="reverted">The image with the plan's old bytes.</param>
    /// <param name="options">What the user says of the image.</param>
    /// <exception cref="ToolFailure">It is no plan of this image (PV7009).</exception>
    public static void Check(PatchPlan stored, string planPath, KernelInput reverted, KernelOptions options)
    {
        if (!KernelImage.TryOpen(reverted.Elf, options, out KernelImage? image, out PatchDiagnostic? error))
        {
            throw new ToolFailure(NotOfImage(planPath, null, "with its original bytes the image is no kernel whose sites can be found"), error with { Source = reverted.Path });
        }

        var machine = new BootMachine { Backend = NativeBackend.Name };
        if (KernelPlan.TryMake(image, machine, reverted.Path, out IReadOnlyList<PatchDiagnostic> diagnostics) is not PatchPlan memory)
        {
            throw new ToolFailure([NotOfImage(planPath, diagnostics[0].Address, "with its original bytes the image is no kernel that can be patched"), .. diagnostics]);
        }

        PatchPlan own = BootablePlan.ForRevert(image, memory);
        for (int i = 0; i < stored.Count; i++)
        {
            CheckPlace(stored[i], own, image, planPath);
        }

        for (int i = 0; i < own.Count; i++)
        {
            SiteDecision site = own[i];
            if (site.Action != PatchAction.Record && !Has(stored, site.Address))
            {
                throw new ToolFailure(NotOfImage(planPath, site.Address, $"it leaves out the site of {site.Label}"));
            }
        }
    }

    private static void CheckPlace(SiteDecision stored, PatchPlan own, KernelImage image, string planPath)
    {
        int index = own.IndexContaining(stored.Address);
        if (index < 0 || own[index].Address != stored.Address || own[index].Length != stored.Length)
        {
            throw new ToolFailure(NotOfImage(planPath, stored.Address, "it writes where the image has no site") with
            {
                Found = $"{stored.Length} bytes for {stored.Label}",
                Expected = index < 0 ? "a site of the image's table" : $"{own[index].Length} bytes at {own[index].Address}, the site of {own[index].Label}",
            });
        }

        SiteDecision site = own[index];
        bool isRight = stored.OldBytes.SequenceEqual(stored.NewBytes)
            || (site.Action == PatchAction.Record ? stored.NewBytes.SequenceEqual(site.NewBytes) : IsOriginal(stored.OldBytes, site, image));
        if (!isRight)
        {
            throw new ToolFailure(NotOfImage(planPath, stored.Address, $"what it calls the original is not what stands at a site of {site.Label}") with
            {
                Found = HexBytes.Format(stored.OldBytes),
                Expected = site.Action == PatchAction.Record ? "the record that the plan's new bytes were made of"
                    : site.Outcome.Type is int slot ? $"a call or jump through {image.SlotWords[slot]}"
                    : "a call or jump through the site's slot",
            });
        }
    }

    /// <summary>
    /// Whether code is what a compiler leaves at a site: one call or jump through the word of the slot, nops, and in old assembly code registers saved
    /// before it and taken back behind it.
    /// </summary>
    private static bool IsOriginal(ReadOnlySpan<byte> bytes, SiteDecision site, KernelImage image)
    {
        var decoder = Decoder.Create(image.Elf.Bitness, bytes.ToArray(), site.Address.Value);
        var saved = new Stack<Register>();
        int transfers = 0;
        int swaps = 0;
        int at = 0;
        while (at < bytes.Length)
        {
            decoder.Decode(out Instruction instruction);
            at += instruction.Length;
            switch (instruction.Mnemonic)
            {
                case Mnemonic.Nop:
                    break;
                case Mnemonic.Push when instruction.Op0Kind == OpKind.Register && transfers == 0:
                    saved.Push(instruction.Op0Register);
                    break;
                case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && transfers == 1 && saved.TryPop(out Register register) && register == instruction.Op0Register:
                    break;
                case Mnemonic.Call or Mnemonic.Jmp when IsThroughSlot(instruction, site, image):
                    transfers++;
                    break;
                case Mnemonic.Swapgs:
                    swaps++;
                    break;
                default:
                    return false;
            }
        }

        return at == bytes.Length && saved.Count == 0 && (swaps == 0 ? transfers == 1 : swaps == 1 && transfers == 0 && site.Label == SwapGs);
    }

    private static bool IsThroughSlot(in Instruction instruction, SiteDecision site, KernelImage image) =>
        instruction.Op0Kind == OpKind.Memory && instruction.IsCallNearIndirect | instruction.IsJmpNearIndirect
        && instruction.MemoryBase is Register.None or Register.RIP && instruction.MemoryIndex == Register.None
        && instruction.SegmentPrefix is Register.None or Register.CS or Register.DS or Register.ES or Register.SS
        && site.Outcome.Type is int slot && slot < image.SlotWords.Count && image.SlotWords[slot].Value == Extended(instruction, image.Elf.Bitness);

    /// <summary>The address in an instruction. Without rip, four bytes of it are extended by sign in 64-bit code.</summary>
    private static ulong Extended(in Instruction instruction, int bitness) =>
        bitness == 32 || instruction.MemoryBase == Register.RIP ? instruction.MemoryDisplacement64
        : unchecked((ulong)(int)(uint)instruction.MemoryDisplacement64);

    private static bool Has(PatchPlan plan, VirtualAddress address)
    {
        int index = plan.IndexContaining(address);
        return index >= 0 && plan[index].Address == address;
    }

    private static PatchDiagnostic NotOfImage(string planPath, VirtualAddress? address, string why) =>
        PatchDiagnostic.Error(ToolDiagnosticCodes.NotAPlanOfImage, $"this is no plan of this image: {why}") with
        {
            Source = planPath,
            Address = address,
            Help = "Nothing was written. Give the plan this image was patched with, and the options that told patch of the image; or the original (--original).",
        };
}
