using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks;

/// <summary>An image with call sites, the same on every machine and in every run.</summary>
internal sealed class Workload
{
    public const int DefaultSites = 100_000;

    private const ulong TextAddress = 0xffffffff81000000;
    private const ulong TableAddress = 0xffffffff89000000;
    private const ulong FunctionAddress = 0xffffffff8a000000;

    private readonly byte[] _pristine;

    private Workload(byte[] pristine, SiteTable sites)
    {
        _pristine = pristine;
        Text = (byte[])pristine.Clone();
        Image = new CodeImage(TextAddress, Text);
        Sites = sites;
        Layout = OpsLayout.Create(b => b.Table("ops", AddSlots, CallConvention.KernelSysV));
        Backend = Backend.Create("synthetic", Layout, Fill);
        OtherBackend = Backend.Derive("other", Retarget);
    }

    public byte[] Text { get; }

    public CodeImage Image { get; }

    public SiteTable Sites { get; }

    public OpsLayout Layout { get; }

    public Backend Backend { get; }

    /// <summary>As <see cref="Backend"/>, but calls go elsewhere.</summary>
    public Backend OtherBackend { get; }

    public static VirtualAddress Base => TextAddress;

    public static ulong Target(int slot) => FunctionAddress + ((ulong)slot * 0x40);

    public static Workload Create(Shape shape, int count = DefaultSites)
    {
        var random = new SplitMix(0x5eed);
        var sites = new PatchSite[count];
        ulong address = TextAddress;
        for (int i = 0; i < count; i++)
        {
            address += random.Next(1, 33); // code between the sites
            int slot = (int)random.Next(0, SyntheticOps.Count);
            int budget = shape == Shape.Kernel && random.Next(0, 3) != 0 ? 6 : (int)random.Next(5, 17);
            RegisterSet clobbers = shape == Shape.Clobbers ? Clobbers(random.Next(0, 6)) : RegisterSet.All;
            sites[i] = new PatchSite(address, slot, budget, clobbers);
            address += (ulong)budget;
        }

        // The last site ends with the image: the tail of an image is the place where wide stores may not go.
        byte[] text = new byte[address - TextAddress];
        for (int i = 0; i < text.Length; i++)
        {
            text[i] = (byte)random.Next(0, 256);
        }

        foreach (PatchSite site in sites)
        {
            WriteIndirectCall(text.AsSpan((int)(site.Address.Value - TextAddress), site.Budget), site);
        }

        return new Workload(text, SiteTable.Create(sites));
    }

    /// <summary>Puts the original bytes back.</summary>
    public void Reset() => _pristine.CopyTo(Text, 0);

    private static RegisterSet Clobbers(ulong number) => number switch
    {
        0 => RegisterSet.None,
        1 => RegisterSet.Rax,
        2 => RegisterSet.Rax | RegisterSet.Rdx | RegisterSet.Flags,
        3 => RegisterSet.Flags,
        4 => SyntheticOps.DestroyedByCall,
        _ => RegisterSet.All,
    };

    private static void WriteIndirectCall(Span<byte> site, PatchSite record)
    {
        if (site.Length == 5)
        {
            // call [rbx-40]; xchg ax,ax: what fits where call [rip+...] does not
            ReadOnlySpan<byte> call = [0xff, 0x53, 0xd8, 0x66, 0x90];
            call.CopyTo(site);
            return;
        }

        site[0] = 0xff; // call [rip+displacement], of the ops table's word
        site[1] = 0x15;
        ulong slot = TableAddress + ((ulong)record.Slot * 8);
        BinaryPrimitives.WriteInt32LittleEndian(site[2..], (int)(long)(slot - (record.Address.Value + 6)));
        NopFill.Fill(site[6..]);
    }

    private static void AddSlots(OpsTableBuilder table)
    {
        for (int i = 0; i < SyntheticOps.Count; i++)
        {
            table.Slot(FormattableString.Invariant($"op{i}"));
        }
    }

    private static void Fill(BackendBuilder builder)
    {
        for (int i = 0; i < SyntheticOps.Count; i++)
        {
            SyntheticOp op = SyntheticOps.All[i];
            string name = FormattableString.Invariant($"ops.op{i}");
            builder.Set(name, op.Kind switch
            {
                OperationKind.Nop => Operation.Nop,
                OperationKind.Inline => Operation.Inline(InlineBody.FromBytes(op.Body)),
                _ => Operation.Call(Target(i)),
            });
        }
    }

    private static void Retarget(BackendBuilder builder)
    {
        foreach (OpSlot slot in builder.Layout.Slots.Where(s => builder.Get(s.Name).Kind == OperationKind.Call))
        {
            builder.Call(slot.Name, Target(slot.Index) + 0x20);
        }
    }

    /// <summary>Steele, Lea and Flood's SplitMix64: the same numbers on every runtime.</summary>
    private struct SplitMix(ulong seed)
    {
        private ulong _state = seed;

        /// <summary>A number from <paramref name="from"/> up to but not including <paramref name="to"/>.</summary>
        public ulong Next(ulong from, ulong to)
        {
            ulong z = _state += 0x9e3779b97f4a7c15;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            return from + ((z ^ (z >> 31)) % (to - from));
        }
    }
}
