using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>How the sites of a <see cref="DumpedKernel"/> are before patching.</summary>
internal enum SiteForm
{
    /// <summary>call [rip+disp32]: ff 15, 6 bytes, as from 5.13 on.</summary>
    Relative,

    /// <summary>call [disp32]: ff 14 25 in 64-bit code (7 bytes, up to 5.12), ff 15 in 32-bit code (6 bytes).</summary>
    Absolute,
}

/// <summary>
/// A small kernel image with constant data, pointers and sites, plans for three backends, and its memory as it is in a machine: moved by
/// KASLR, patched or not, with or without the memory of its start.
/// </summary>
internal sealed class DumpedKernel
{
    public const int SiteCount = 24;
    public const int InitSiteCount = 6;
    private const int SiteStride = 0x40;
    private const int TextSize = 0x3000;
    private const int DataSize = 0x2000;

    private readonly SiteForm _form;
    private readonly Dictionary<string, (ulong Address, byte[] Bytes)> _sections = [];
    private readonly List<(string Section, int Offset)> _pointers = [];

    /// <param name="seed">Another seed is another build.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="form">How the sites are before patching.</param>
    /// <param name="zeroStarts">Whether each 32 bytes of constants and code begin with 16 zeros, as a kernel's tables do.</param>
    public DumpedKernel(int seed = 1, int bitness = 64, SiteForm form = SiteForm.Relative, bool zeroStarts = false)
    {
        _form = form;
        Bitness = bitness;
        Text = bitness == 64 ? 0xffffffff81000000 : 0xc1000000;
        var random = new Random(seed);
        AddSection(".text", 0, TextSize, random);
        AddSection(".rodata", 0x1000000, DataSize, random);
        AddSection(".data", 0x1800000, 0x400, random);
        AddSection(".init.text", 0x2000000, 0x1000, random);
        for (int at = 0; zeroStarts && at < TextSize; at += 32)
        {
            _sections[".text"].Bytes.AsSpan(at, 16).Clear();
            _sections[".rodata"].Bytes.AsSpan(Math.Min(at, DataSize - 16), 16).Clear();
        }

        MakeConstants(seed, random);
        for (int i = 0; i < SiteCount + InitSiteCount; i++)
        {
            MakeSite(i);
        }

        Elf = ElfImage.Read(MakeElf());
        Native = MakePlan("native", 0);
        Kvm = MakePlan("kvm", 1);
        Xen = MakePlan("xen", 2);
    }

    public int Bitness { get; }

    public ulong Text { get; }

    public ElfImage Elf { get; }

    public PatchPlan Native { get; }

    public PatchPlan Kvm { get; }

    public PatchPlan Xen { get; }

    public int SiteLength => _form == SiteForm.Absolute && Bitness == 64 ? 7 : 6;

    /// <summary>The virtual addresses of the sites, those of the start last.</summary>
    public ulong Site(int index) => index < SiteCount
        ? Text + 0x128 + (ulong)(index * SiteStride) : Text + 0x2000000 + 0x128 + (ulong)((index - SiteCount) * SiteStride);

    /// <summary>The memory of a machine. Link addresses index it still; what KASLR changes is changed.</summary>
    public MachineMemory Boot(PatchPlan? plan, long slide = 0)
    {
        var memory = new MachineMemory(slide, _sections.Select(s => (s.Key, s.Value.Address, (byte[])[.. s.Value.Bytes])));
        foreach ((string section, int offset) in _pointers)
        {
            memory.Relocate(_sections[section].Address + (ulong)offset, Bitness / 8);
        }

        for (int i = 0; i < SiteCount + InitSiteCount; i++)
        {
            if (_form == SiteForm.Absolute)
            {
                memory.Relocate(Site(i) + (ulong)(SiteLength - 4), 4);
            }
        }

        for (int i = 0; i < (plan?.Count ?? 0); i++)
        {
            memory.Put(plan![i].Address.Value, plan[i].NewBytes.ToArray());
        }

        return memory;
    }

    public KernelMemory Locate(MemoryFile file)
    {
        Assert.True(KernelMemoryLocator.TryLocate(Elf, file, out KernelMemory? memory, out PatchDiagnostic? error), error?.ToString());
        return memory;
    }

    private void AddSection(string name, ulong offset, int size, Random random)
    {
        // Text of many letters: no four of them are an address of the kernel.
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++)
        {
            bytes[i] = (byte)random.Next(0x21, 0x7f);
        }

        _sections.Add(name, (Text + offset, bytes));
    }

    private void MakeConstants(int seed, Random random)
    {
        System.Text.Encoding.ASCII.GetBytes($"Linux version 6.{seed}.0 (build@host) #1 SMP\n\0").CopyTo(_sections[".rodata"].Bytes, 0x40);
        for (int at = 0x100; at < DataSize; at += 0x100)
        {
            AddPointer(".rodata", at, random);
        }

        _sections[".data"].Bytes.AsSpan().Clear();
        for (int at = 0; at < 0x100; at += Bitness / 8)
        {
            AddPointer(".data", at, random);
        }
    }

    private void AddPointer(string section, int at, Random random)
    {
        Span<byte> place = _sections[section].Bytes.AsSpan(at);
        ulong target = Text + (ulong)random.Next(0x2000);
        if (Bitness == 64)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(place, target);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(place, (uint)target);
        }

        _pointers.Add((section, at));
    }

    private void MakeSite(int index)
    {
        ulong address = Site(index);
        ulong slot = Text + 0x1800000 + (ulong)(index % 8 * (Bitness / 8));
        byte[] call = _form == SiteForm.Relative ? [0xff, 0x15, 0, 0, 0, 0] : Bitness == 64
            ? [0xff, 0x14, 0x25, 0, 0, 0, 0] : [0xff, 0x15, 0, 0, 0, 0];
        uint operand = _form == SiteForm.Relative ? (uint)(slot - (address + 6)) : (uint)slot;
        BinaryPrimitives.WriteUInt32LittleEndian(call.AsSpan(call.Length - 4), operand);
        string section = index < SiteCount ? ".text" : ".init.text";
        call.CopyTo(_sections[section].Bytes, (int)(address - _sections[section].Address));
    }

    // Bodies as kernels have them: cli, and nops to the end of the site (FINDINGS of booted kernels; GNU as: cli; nopw 0x0(%rax,%rax,1)).
    private PatchPlan MakePlan(string backend, int number)
    {
        var image = new CodeImage(
            Bitness, Elf.Sections.Where(static s => s.IsExecutable).Select(s => new CodeSegment(s.Name, s.Address, Elf.GetBytes(s))));
        var plan = new PlanBuilder(backend, "test", image);
        for (int i = 0; i < SiteCount + InitSiteCount; i++)
        {
            bool same = Elf.TryGetBytes(Site(i), SiteLength, out Memory<byte> old);
            Assert.True(same);
            (byte[] bytes, PatchAction action) = Body(i, number);
            plan.Add(Site(i), old.Span, bytes, new PlanOutcome { Label = $"slot{i % 8}", Action = action });
        }

        return plan.Build();
    }

    private (byte[] Bytes, PatchAction Action) Body(int index, int backend)
    {
        byte[] body = (index % 4) switch
        {
            0 when backend < 2 => [0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00], // cli; nop of 5
            1 => [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00], // nop of 6, everywhere
            2 when backend < 2 => Call(index, 0x200),
            _ => Call(index, 0x300 + (ulong)(backend * 0x100)),
        };
        PatchAction action = body[0] == 0xe8 ? PatchAction.Call : body[0] == 0x66 ? PatchAction.Nop : PatchAction.Inline;
        return ([.. body, .. Enumerable.Repeat((byte)0x90, SiteLength - 6)], action);
    }

    // call rel32; nop
    private byte[] Call(int index, ulong target)
    {
        byte[] call = [0xe8, 0, 0, 0, 0, 0x90];
        BinaryPrimitives.WriteUInt32LittleEndian(call.AsSpan(1), (uint)(Text + target - (Site(index) + 5)));
        return call;
    }

    private byte[] MakeElf()
    {
        var elf = new TestElf(Bitness);
        foreach ((string name, (ulong address, byte[] bytes)) in _sections)
        {
            if (name.EndsWith("text", StringComparison.Ordinal))
            {
                elf.Code(name, address, bytes);
            }
            else if (name == ".data")
            {
                elf.Add(name, ElfSectionType.ProgramBits, ElfSectionAttributes.Alloc | ElfSectionAttributes.Write, address, bytes);
            }
            else
            {
                elf.Data(name, address, bytes);
            }
        }

        return elf.Load(".text", ".text").Build();
    }
}
