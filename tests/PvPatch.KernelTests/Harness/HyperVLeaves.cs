using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>Hyper-V's leaves (Hypervisor Top Level Functional Specification, "Feature and interface discovery").</summary>
internal static class HyperVLeaves
{
    private const uint Last = 0x4000_000a;

    /// <summary>The hypercall page and the virtual processor's index.</summary>
    private const uint Required = 0x60;

    public static Dictionary<uint, CpuidAnswer> Make(HyperVOptions options)
    {
        Dictionary<uint, CpuidAnswer> answers = [];
        for (uint leaf = CpuidAnswer.SignatureLeaf; leaf <= Last; leaf++)
        {
            answers[leaf] = default;
        }

        answers[CpuidAnswer.SignatureLeaf] = CpuidAnswer.Signature(Last, "Microsoft Hv"u8);
        answers[0x4000_0001] = new CpuidAnswer(BinaryPrimitives.ReadUInt32LittleEndian("Hv#1"u8), 0, 0, 0);
        answers[0x4000_0003] = new CpuidAnswer(options.Features | Required, 0, 0, 0);
        answers[0x4000_0004] = new CpuidAnswer(options.Hints, 0, 0, 0);

        // Limits: processors, logical processors.
        answers[0x4000_0005] = new CpuidAnswer(64, 64, 0, 0);
        return answers;
    }
}
