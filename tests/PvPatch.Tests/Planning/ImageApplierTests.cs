using System.Runtime.Intrinsics.X86;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Planning;

/// <summary>
/// Masked stores and the way without them write the same bytes: at every length and place in a segment, where all sites are original,
/// patched, or mixed. The new bytes are made a second time here, by hand.
/// </summary>
public sealed class ImageApplierTests
{
    private const int Count = 300;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Applies_and_reverts_images_in_every_state(bool masked)
    {
        Assert.SkipWhen(masked && !Avx512BW.VL.IsSupported, "needs a processor with AVX-512");
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        var work = new Work(new Random(seed));
        PatchPlan plan = work.Plan();
        byte[] patched = work.Patched();

        for (int percent = 0; percent <= 100; percent += 25)
        {
            work.Reset(percent, patched);
            int toWrite = work.Differing(patched);
            Assert.True(ImageApplier.TryRun(plan, work.Image, toNew: true, masked, out ApplyResult applied));
            Assert.Equal(patched, work.Code);
            applied.AssertApplied(toWrite, Count - toWrite);

            work.Reset(percent, patched);
            toWrite = work.Differing(work.Original);
            Assert.True(ImageApplier.TryRun(plan, work.Image, toNew: false, masked, out ApplyResult reverted));
            Assert.Equal(work.Original, work.Code);
            reverted.AssertApplied(toWrite, Count - toWrite);
        }
    }

    /// <summary>
    /// One foreign byte anywhere in a site, bytes 8 to 15 and those of the field among them, and nothing at all is written.
    /// </summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Every_byte_of_every_site_is_compared_before_the_first_write(bool masked)
    {
        Assert.SkipWhen(masked && !Avx512BW.VL.IsSupported, "needs a processor with AVX-512");
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        var work = new Work(new Random(seed));
        PatchPlan plan = work.Plan();
        byte[] patched = work.Patched();
        foreach (bool toNew in (bool[])[true, false])
        {
            for (int i = 0; i < Count; i += 7)
            {
                for (int k = 0; k < plan[i].Length; k++)
                {
                    work.Reset(toNew ? 0 : 100, patched);
                    int at = work.OffsetOf(plan[i].Address) + k;
                    work.Code[at] ^= 0x40;
                    byte[] before = [.. work.Code];
                    Assert.False(ImageApplier.TryRun(plan, work.Image, toNew, masked, out ApplyResult refused));
                    Assert.Equal(before, work.Code);
                    Assert.Equal((Count, 0, 0), (refused.Count, refused.Written, refused.AlreadyThere));
                    Assert.Equal(
                        (DiagnosticCodes.UnexpectedBytes, i), (Assert.Single(refused.Diagnostics).Code, refused.Diagnostics[0].SiteIndex));
                }
            }
        }
    }

    /// <summary>
    /// A segment whose first or last byte stands beside memory that can't be read: a site of any length at any distance from the segment's
    /// end is planned, applied, verified and reverted without a byte outside being touched.
    /// </summary>
    [Theory]
    [InlineData(false, true)]
    [InlineData(false, false)]
    [InlineData(true, true)]
    public void Nothing_outside_a_segment_is_read_or_written(bool masked, bool toTheEnd)
    {
        Assert.SkipWhen(masked && !Avx512BW.VL.IsSupported, "needs a processor with AVX-512");
        var cases = new PlanCases(1);
        Backend backend = cases.All(Operation.Nop).Derive("b", static b => b.Call("ops.s0", PlanCases.Target));
        for (int length = 6; length <= 18; length++)
        {
            for (int behind = 0; behind < 20; behind++)
            {
                using var memory = new GuardedMemory((8 * length) + behind, toTheEnd);
                Span<byte> code = memory.Memory.Span;
                PatchSite[] sites = [.. Enumerable.Range(0, 8)
                    .Select(i => new PatchSite(PlanCases.Start + (ulong)(i * length), i % 4, length, RegisterSet.All))];
                for (int i = 0; i < sites.Length; i++)
                {
                    code.Slice(i * length, length).Fill(0x90);
                    ((byte[])[0xff, 0x15, 0, 0, 0, 0]).CopyTo(code[(i * length)..]);
                }

                byte[] before = code.ToArray();
                var image = new CodeImage(64, new CodeSegment(".text", PlanCases.Start, memory.Memory));
                PatchPlan plan = new PatchPlanner().Plan(image, SiteTable.Create(sites), backend);
                Assert.True(ImageApplier.TryRun(plan, image, toNew: true, masked, out ApplyResult applied));
                applied.AssertApplied(8, 0);
                for (int i = 0; i < sites.Length; i++)
                {
                    byte[] call = [0xe8, .. BitConverter.GetBytes((int)(PlanCases.Target - sites[i].Address.Value - 5))];
                    Assert.Equal(i % 4 == 0 ? call : [], code.Slice(i * length, i % 4 == 0 ? 5 : 0).ToArray());
                }

                Assert.True(plan.Verify(image).IsPatched);
                Assert.True(ImageApplier.TryRun(plan, image, toNew: false, masked, out _));
                Assert.Equal(before, code.ToArray());
            }
        }
    }

    /// <summary>Sites that keep their bytes and sites that hold the wanted ones get no store, not even of the same bytes.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Nothing_is_stored_where_bytes_stay(bool masked)
    {
        Assert.SkipWhen(masked && !Avx512BW.VL.IsSupported, "needs a processor with AVX-512");
        const ulong Start = 0x40_0000;
        const int Sites = 21;
        const int Length = 8;
        using var memory = new GuardedMemory((Sites * Length) + 16, toTheEnd: true);
        var sites = new PatchSite[Sites];
        for (int i = 0; i < Sites; i++)
        {
            ((byte[])[0xff, 0x15, 1, 2, 3, (byte)i, 0x66, 0x90]).CopyTo(memory.GetSpan()[(i * Length)..]);
            sites[i] = new PatchSite(Start + (ulong)(i * Length), 0, Length, RegisterSet.All);
        }

        var image = new CodeImage(64, new CodeSegment("text", Start, memory.Memory));
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op")));
        PatchPlan Plan(ulong target) => new PatchPlanner().Plan(
            image, SiteTable.Create(sites), Backend.Create("b", layout, b => b.Call("t.op", target)));
        PatchPlan outOfReach = Plan(0xffff_ffff_0000_0000);
        PatchPlan calls = Plan(Start + 0x1000);

        memory.Protect(isReadOnly: true);
        foreach (bool toNew in (bool[])[true, false])
        {
            Assert.True(ImageApplier.TryRun(outOfReach, image, toNew, masked, out ApplyResult kept));
            kept.AssertApplied(0, Sites);
        }

        memory.Protect(isReadOnly: false);
        Assert.True(ImageApplier.TryRun(calls, image, toNew: true, masked, out _));
        memory.Protect(isReadOnly: true);
        Assert.True(ImageApplier.TryRun(calls, image, toNew: true, masked, out ApplyResult second));
        second.AssertApplied(0, Sites);
    }

    /// <summary>Sites of every length from 5 to 20, nothing between some of them, in two segments of one array.</summary>
    private sealed class Work
    {
        private const ulong Start = 0x40_0000;
        private const ulong OtherStart = 0x90_0000;
        private readonly List<PatchSite> _sites = [];
        private readonly List<int> _offsets = [];
        private readonly int _split;
        private readonly OpsLayout _layout = OpsLayout.Create(
            static b => b.Table("t", static t => t.Slot("call").Slot("nop").Slot("cli").Slot("left")));

        public Work(Random random)
        {
            var code = new List<byte>();
            for (int i = 0; i < Count; i++)
            {
                if (i == Count / 2)
                {
                    _split = code.Count;
                }

                code.AddRange(Enumerable.Repeat((byte)0xcc, random.Next(0, 3)));
                int length = random.Next(6, 21);
                ulong address = i < Count / 2 ? Start + (ulong)code.Count : OtherStart + (ulong)(code.Count - _split);
                _offsets.Add(code.Count);
                _sites.Add(new PatchSite(address, random.Next(0, 4), length, i % 9 == 0 ? RegisterSet.None : RegisterSet.All));
                code.AddRange((byte[])[0xff, 0x15, .. BitConverter.GetBytes(random.Next()), .. Enumerable.Repeat((byte)0x90, length - 6)]);
            }

            Original = [.. code];
            Code = [.. code];
            Image = new CodeImage(
                64, new CodeSegment("a", Start, Code.AsMemory(0, _split)), new CodeSegment("b", OtherStart, Code.AsMemory(_split)));
        }

        public byte[] Original { get; }

        public byte[] Code { get; }

        public CodeImage Image { get; }

        public int OffsetOf(VirtualAddress address) => _offsets[_sites.FindIndex(s => s.Address == address)];

        public PatchPlan Plan()
        {
            Backend backend = Backend.Create("b", _layout, static b => b
                .Call("t.call", 0x50_1234).Nop("t.nop").Inline("t.cli", static a => a.cli()).Call("t.left", 0xffff_ffff_0000_0000));
            return new PatchPlanner().Plan(Image, SiteTable.Create([.. _sites]), backend);
        }

        /// <summary>
        /// The new bytes by hand: a call, nops, cli and nops, or the old ones where a call destroys too much or does not reach.
        /// </summary>
        public byte[] Patched()
        {
            byte[] all = [.. Original];
            for (int i = 0; i < Count; i++)
            {
                PatchSite site = _sites[i];
                byte[]? body = site.Slot switch
                {
                    0 when site.Clobbers == RegisterSet.All =>
                        [0xe8, .. BitConverter.GetBytes((int)(0x50_1234 - (long)site.Address.Value - 5))],
                    1 => [],
                    2 => [0xfa],
                    _ => null,
                };
                if (body is not null)
                {
                    body.CopyTo(all, _offsets[i]);
                    NopStyle.P6.Fill(all.AsSpan(_offsets[i] + body.Length, site.Budget - body.Length), 64);
                }
            }

            return all;
        }

        /// <summary>Original bytes, but for so many of a hundred sites the patched ones.</summary>
        public void Reset(int percent, byte[] patched)
        {
            for (int i = 0; i < Count; i++)
            {
                byte[] from = i * 37 % 100 < percent ? patched : Original;
                from.AsSpan(_offsets[i], _sites[i].Budget).CopyTo(Code.AsSpan(_offsets[i]));
            }
        }

        public int Differing(byte[] wanted) => Enumerable.Range(0, Count).Count(i =>
            !wanted.AsSpan(_offsets[i], _sites[i].Budget).SequenceEqual(Code.AsSpan(_offsets[i], _sites[i].Budget)));
    }
}
