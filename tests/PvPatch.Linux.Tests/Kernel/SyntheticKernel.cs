using System.Buffers.Binary;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// Makes small kernel images in the form of 6.1: an ops table, functions, sites with their table, alternatives, type information.
/// Every part can be replaced or left out, so that a test breaks one thing.
/// </summary>
internal sealed class SyntheticKernel
{
    public const ulong Text = 0xffffffff81000000;
    public const ulong InitText = 0xffffffff83000000;
    public const ulong Data = 0xffffffff82a00000;
    public const ulong Bss = 0xffffffff82c00000;
    public const ulong OpsTable = Data + 0x40;
    public const ulong SiteTableAddress = 0xffffffff83100000;
    public const ulong AlternativesAddress = 0xffffffff83200000;
    public const ulong ReplacementAddress = 0xffffffff83210000;

    /// <summary>The function that only returns.</summary>
    public const ulong EmptyFunction = Text + 0x100;

    /// <summary>X86_FEATURE_XENPV, PVUNLOCK and VCPUPREEMPT of 6.1: word 8, bits 16, 20 and 21.</summary>
    public const int XenPv = 0x110;
    public const int PvUnlock = 0x114;
    public const int VcpuPreempt = 0x115;

    private const int FunctionsAt = 0x200;
    private const int SitesAt = 0x1000;
    private const int SectionSize = 0x2000;

    private readonly byte[] _text = Filled(SectionSize);
    private readonly byte[] _initText = Filled(SectionSize);
    private readonly List<byte> _replacements = [];
    private readonly List<Alternative> _alternatives = [];
    private int _nextSite = SitesAt;
    private int _nextInitSite;

    private sealed record Alternative(ulong Address, int Length, int Feature, bool Not, int At, int ReplacementLength);

    public SyntheticKernel()
    {
        Put(EmptyFunction, 0xc3);
        for (int i = 0; i < SyntheticOps.Names.Count; i++)
        {
            // Functions that do something: mov eax, edi; ret
            Put(FunctionOf(i), 0x89, 0xf8, 0xc3);
            Pointers.Add(FunctionOf(i));
        }

        foreach (string slot in SyntheticOps.Empty)
        {
            Pointers[SyntheticOps.IndexOf(slot)] = EmptyFunction;
        }
    }

    /// <summary>What the ops table holds, by slot number.</summary>
    public List<ulong> Pointers { get; } = [];

    /// <summary>The records of the site table.</summary>
    public List<ParaInstruction> Records { get; } = [];

    /// <summary>The bytes of the type information.</summary>
    public byte[] Btf { get; set; } = SyntheticOps.Btf();

    /// <summary>The bytes of the site table, where they are not just the records.</summary>
    public byte[]? SiteTable { get; set; }

    /// <summary>The bytes of the alternatives table, where they are not just the alternatives added.</summary>
    public byte[]? AlternativesTable { get; set; }

    /// <summary>Sections beside the usual ones.</summary>
    public List<(string Name, bool IsCode, ulong Address, byte[] Bytes)> Others { get; } = [];

    /// <summary>Sections to leave out.</summary>
    public HashSet<string> Without { get; } = [];

    public static ulong FunctionOf(int slot) => Text + FunctionsAt + ((ulong)slot * 16);

    public static ulong FunctionOf(string slot) => FunctionOf(SyntheticOps.IndexOf(slot));

    /// <summary>A kernel with a site for every slot, and alternatives as 6.1 lays them over.</summary>
    public static SyntheticKernel Complete()
    {
        var kernel = new SyntheticKernel();
        foreach (string slot in SyntheticOps.Names)
        {
            kernel.AddSite(slot);
        }

        kernel.AddSite("irq.save_fl", init: true);
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable", init: true), XenPv, true, 0xfa);
        kernel.AddAlternative(kernel.AddSite("irq.irq_enable"), XenPv, true, 0xfb);
        kernel.AddAlternative(kernel.AddSite("lock.queued_spin_unlock"), PvUnlock, true, 0xc6, 0x07, 0x00);
        return kernel;
    }

    /// <summary>A kernel as of 6.8: no table of sites, one direct call among its alternatives.</summary>
    public static SyntheticKernel WithDirectCall()
    {
        // A record of 14 bytes, ALT_CALL_ALWAYS (0x00020075).
        SyntheticKernel kernel = Complete();
        kernel.AddAlternative(Text + 0x1000, XenPv, true, 0xe8, 0, 0, 0, 0);
        kernel.AlternativesTable = Alternative14(0, Text + 0x1000, 0x00020075, 6, 5);
        kernel.Without.Add(".parainstructions");
        return kernel;
    }

    /// <summary>
    /// A record of 14 bytes: distances from the two fields, flags and feature in 32 bits, two lengths; the replacement is the one added
    /// last.
    /// </summary>
    public static byte[] Alternative14(int index, ulong site, uint feature, byte length, byte replacementLength)
    {
        byte[] record = new byte[14];
        ulong at = AlternativesAddress + (ulong)(14 * index);
        BinaryPrimitives.WriteInt32LittleEndian(record, (int)(site - at));
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), (int)(ReplacementAddress - (at + 4)));
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), feature);
        record[12] = length;
        record[13] = replacementLength;
        return record;
    }

    /// <summary>Adds a site of 6 bytes, an indirect call through a slot, and its record.</summary>
    public ulong AddSite(string slot, bool init = false, int? through = null)
    {
        int index = SyntheticOps.IndexOf(slot);
        ulong address = init ? InitText + (ulong)_nextInitSite : Text + (ulong)_nextSite;
        PutCall(address, through ?? index);
        if (init)
        {
            _nextInitSite += 16;
        }
        else
        {
            _nextSite += 16;
        }

        Records.Add(new ParaInstruction(address, (byte)index, 6, 0x01ff));
        return address;
    }

    /// <summary>Adds an alternative over a whole site; "not" means that it applies where the feature is absent.</summary>
    public SyntheticKernel AddAlternative(ulong address, int feature, bool not, params byte[] replacement) =>
        AddAlternative(address, 6, feature, not, replacement);

    public SyntheticKernel AddAlternative(ulong address, int length, int feature, bool not, params byte[] replacement)
    {
        _alternatives.Add(new Alternative(address, length, feature, not, _replacements.Count, replacement.Length));
        _replacements.AddRange(replacement);
        return this;
    }

    /// <summary>The address at which the replacement added next will lie.</summary>
    public ulong NextReplacement => ReplacementAddress + (ulong)_replacements.Count;

    /// <summary>Overwrites code.</summary>
    public void Put(ulong address, params byte[] bytes) =>
        bytes.CopyTo(address >= InitText ? _initText : _text, (int)(address - (address >= InitText ? InitText : Text)));

    public byte[] Build()
    {
        var elf = new TestElf();
        Add(elf, ".text", true, Text, _text);
        Add(elf, ".data", false, Data, OpsData());
        elf.NoBits(".bss", Bss, 0x1000);
        Add(elf, ".BTF", false, 0xffffffff82b00000, Btf);
        Add(elf, ".init.text", true, InitText, _initText);
        Add(elf, ".parainstructions", false, SiteTableAddress, SiteTable ?? SiteTableBytes());
        Add(elf, ".altinstructions", false, AlternativesAddress, AlternativesTable ?? AlternativesBytes());
        Add(elf, ".altinstr_replacement", true, ReplacementAddress, [.. _replacements, 0xcc]);
        foreach ((string name, bool isCode, ulong address, byte[] bytes) in Others)
        {
            Add(elf, name, isCode, address, bytes);
        }

        elf.Load(Without.Contains(".text") ? ".data" : ".text", ".data");
        return elf.Build();
    }

    /// <summary>Reads the image, which must be a sound ELF file.</summary>
    public ElfImage Elf() => ElfImage.Read(Build());

    public KernelImage Open()
    {
        Assert.True(KernelImage.TryOpen(Elf(), out KernelImage? image, out PatchDiagnostic? error), error?.ToString());
        return image;
    }

    public byte[] SiteTableBytes()
    {
        byte[] table = new byte[ParaInstructionsFormat.X64Since61.GetSize(Records.Count)];
        ParaInstructionsFormat.X64Since61.Write([.. Records], table);
        return table;
    }

    /// <summary>The alternatives as records of 12 bytes: two distances from the fields themselves, feature, two lengths.</summary>
    public byte[] AlternativesBytes()
    {
        byte[] table = new byte[12 * _alternatives.Count];
        for (int i = 0; i < _alternatives.Count; i++)
        {
            Alternative alternative = _alternatives[i];
            Span<byte> record = table.AsSpan(12 * i, 12);
            ulong at = AlternativesAddress + (ulong)(12 * i);
            BinaryPrimitives.WriteInt32LittleEndian(record, (int)(alternative.Address - at));
            BinaryPrimitives.WriteInt32LittleEndian(record[4..], (int)(ReplacementAddress + (ulong)alternative.At - (at + 4)));
            BinaryPrimitives.WriteUInt16LittleEndian(record[8..], (ushort)(alternative.Feature | (alternative.Not ? 0x8000 : 0)));
            record[10] = (byte)alternative.Length;
            record[11] = (byte)alternative.ReplacementLength;
        }

        return table;
    }

    // call [rip+disp32] through a slot: ff 15
    private void PutCall(ulong address, int slot)
    {
        byte[] call = [0xff, 0x15, 0, 0, 0, 0];
        BinaryPrimitives.WriteInt32LittleEndian(call.AsSpan(2), (int)(OpsTable + ((ulong)slot * 8) - (address + 6)));
        Put(address, call);
    }

    private byte[] OpsData()
    {
        byte[] data = new byte[(int)(OpsTable - Data) + (8 * Pointers.Count)];
        for (int i = 0; i < Pointers.Count; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan((int)(OpsTable - Data) + (8 * i)), Pointers[i]);
        }

        return data;
    }

    private void Add(TestElf elf, string name, bool code, ulong address, byte[] content)
    {
        if (Without.Contains(name))
        {
            return;
        }

        _ = code ? elf.Code(name, address, content) : elf.Data(name, address, content);
    }

    private static byte[] Filled(int size)
    {
        byte[] bytes = new byte[size];
        bytes.AsSpan().Fill(0xcc);
        return bytes;
    }
}
