using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Records;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Records;

/// <summary>Plans of recorded sites at their limits: previous plans of other tables, images that were put back, long regions.</summary>
public sealed class RecordPlannerTests
{
    private const ulong Code = 0x1000;
    private const ulong Table = 0x4000;
    private const ulong Names = 0x5000;
    private const int Site = 0x10; // of the key
    private const int Other = 0x20; // of no record

    private static readonly CodeSegment s_names = new("names", new VirtualAddress(Names), "\0key\0"u8.ToArray());

    private readonly byte[] _code = new byte[0x800];

    public RecordPlannerTests()
    {
        _code.AsSpan().Fill(0x90);
        new byte[] { 0x0f, 0x1f, 0x44, 0, 0 }.CopyTo(_code, Site);
        new byte[] { 0x0f, 0x1f, 0x44, 0, 0 }.CopyTo(_code, Other);
    }

    [Fact]
    public void A_region_that_no_plan_can_hold_is_refused()
    {
        SiteRecords records = Read(Record(5, Code + 0x100, 300, number: 1, target: Code + 0x300, size: 4));
        foreach (int feature in (int[])[1, 2])
        {
            Assert.False(records.TryPlan(Image(), c => c.WithFeatures(feature), null, out _, out IReadOnlyList<PatchDiagnostic> found));
            Assert.Equal((DiagnosticCodes.RecordUnfit, new VirtualAddress(Code + 0x100)), (found[0].Code, found[0].Address));
        }

        records = Read(Record(5, Code + 0x100, 254, number: 1, target: Code + 0x300, size: 4));
        Assert.Equal(254, records.Plan(Image(), c => c.WithFeatures(1))[0].Length);
    }

    [Theory]
    [InlineData(Site + 1)]
    [InlineData(Site - 1)]
    public void A_previous_plan_of_another_table_is_told(int at)
    {
        var before = new PlanBuilder("before", "x", Image());
        byte[] bytes = _code[at..(at + 5)];
        bytes[at < Site ? 0 : ^1] = 0xcc; // the one that is not the key's
        before.Add(Code + (ulong)at, _code.AsSpan(at, 5), bytes, new PlanOutcome { Label = "other", Action = PatchAction.Inline });
        bytes.CopyTo(_code, at);
        var options = new PlanOptions { Previous = before.Build() };
        Assert.False(Key().TryPlan(Image(), c => c.Enable("key"), options, out _, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal(DiagnosticCodes.SiteOverlap, found[0].Code);
    }

    [Fact]
    public void What_was_put_back_since_the_previous_plan_stays_so()
    {
        var before = new PlanBuilder("before", "x", Image());
        before.Add(Code + Other, _code.AsSpan(Other, 5), new byte[5], new PlanOutcome { Label = "other", Action = PatchAction.Inline });
        PatchPlan previous = before.Build();
        byte[] original = [.. _code];
        PatchPlan plan = Key().Plan(Image(), c => c.Enable("key"), new PlanOptions { Previous = previous });
        Assert.Equal(1, plan.ChangeCount);
        plan.Apply(Image());
        Assert.Equal(original.AsSpan(Other, 5), _code.AsSpan(Other, 5));
        plan.Revert(Image());

        // Where it stands, the new plan goes on from it and takes it back as well.
        previous.Apply(Image());
        plan = Key().Plan(Image(), c => c.Enable("key"), new PlanOptions { Previous = previous });
        plan.Apply(Image());
        Assert.Equal(new byte[5], _code[Other..(Other + 5)]);
        plan.Revert(Image());
        Assert.Equal(original, _code);
    }

    [Fact]
    public void Whatever_is_recorded_is_planned_or_told()
    {
        Random random = TestSeed.NewRandom();
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("a").Slot("b")));
        Backend backend = Backend.Create("key", layout, static b => b.Nop("t.a"));
        (int sound, int planned) = (0, 0);
        for (int round = 0; round < 20_000; round++)
        {
            int bitness = random.Next(2) == 0 ? 32 : 64;
            random.NextBytes(_code);
            var records = new List<byte>();
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                records.AddRange(RandomRecord(random, records.Count));
            }

            CodeImage image = Image(bitness);
            var table = new CodeSegment("sites", new VirtualAddress(Table), records.ToArray());
            if (!SiteRecords.TryRead(image, table, s_names, out SiteRecords? read, out _))
            {
                continue;
            }

            sound++;
            foreach (StaticKeyRecord key in read.StaticKeys)
            {
                BranchCode.Nop(key.Length, bitness).ToArray(key.Length).CopyTo(_code, (int)(key.Address.Value - Code));
            }

            foreach (MultiBranchRecord branch in read.MultiBranches)
            {
                BranchCode.Nop(branch.Length, bitness).ToArray(branch.Length).CopyTo(_code, (int)(branch.Address.Value - Code));
            }

            byte[] before = [.. _code];
            PatchPlan? previous = null;
            for (int again = 0; again < 2; again++)
            {
                var options = new PlanOptions { Previous = previous };
                bool all = random.Next(2) == 0;
                bool done = read.TryPlan(
                    image,
                    c =>
                    {
                        _ = all ? c.Use(backend).WithFeatures(random.Next(4)) : c.WithFeatures(random.Next(4));
                        _ = read.StaticKeys.Count > 0 ? random.Next(2) == 0 ? c.Enable("key") : c.Disable("key") : c;
                        _ = read.MultiBranches.Count > 0 ? random.Next(2) == 0 ? c.Set("key", 0) : c.Set("key", null) : c;
                        _ = read.StaticCalls.Count > 0 ? random.Next(2) == 0 ? c.Target("key", Code + 8) : c.ReturnZero("key") : c;
                    },
                    options, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> found);
                Assert.Equal(done, !found.Any(static d => d.Severity == DiagnosticSeverity.Error));
                if (done)
                {
                    planned++;
                    plan!.Apply(image);
                    previous = plan;
                }
            }

            previous?.Revert(image);
            Assert.Equal(before, _code);
        }

        Assert.True(sound > 500 && planned > 200, $"{sound} sound, {planned} planned");
    }

    [Theory] // objdump says what they are
    [InlineData(1, -1, null, "c3cccccccc", "nothing")]
    [InlineData(1, -1, 0, "31c0c3cccc", "xor eax,eax; ret")]
    [InlineData(2, 13, null, "7c04c3cccccc", "jl .+6; ret")] // of jge
    [InlineData(2, 13, 0, "7c0431c0c3cc", "jl .+6; xor eax,eax; ret")]
    [InlineData(2, 4, null, "7504c3cccccc", "jne .+6; ret")] // of je
    [InlineData(2, 15, 0, "7e0431c0c3cc", "jle .+6; xor eax,eax; ret")] // of jg
    public void Tail_calls_of_nothing_return_within_their_site(int form, int condition, int? gives, string bytes, string assembly)
    {
        byte[] record = Record(3, Code + Site, form == 2 ? 6 : 5, Math.Max(condition, 0), Names + 1, Code + 0x100);
        record[2] = (byte)form;
        byte[] laidDown = form == 2 ? [0x0f, (byte)(0x80 | condition), 0xea, 0, 0, 0] : [0xe9, 0xeb, 0, 0, 0];
        laidDown.CopyTo(_code, Site);
        PatchPlan plan = Read(record).Plan(Image(), c => _ = gives is null ? c.Target("key", null) : c.ReturnZero("key"));
        string made = Convert.ToHexStringLower(plan[0].NewBytes);
        Assert.True(bytes == made, $"{assembly}: {made}");
        Assert.Equal(PatchAction.Inline, plan[0].Action);
        plan.Apply(Image());

        // What was put there is known without the plan.
        PatchPlan next = Read(record).Plan(Image(), static c => c.Target("key", Code + 0x100));
        next.Apply(Image());
        Assert.Equal(laidDown, _code.AsSpan(Site, laidDown.Length));
    }

    private static byte[] RandomRecord(Random random, int at)
    {
        int mechanism = random.Next(1, 7);
        ulong site = Code + (ulong)random.Next(0x700);
        ulong other = Code + (ulong)random.Next(0x700);
        int form = mechanism == 3 ? random.Next(3) : 0;
        int length = mechanism switch
        {
            1 => random.Next(5, 12),
            2 or 6 => random.Next(2) * 3 + 2,
            3 => form == 2 ? 6 : 5,
            _ => random.Next(1, 300),
        };
        int size = mechanism is 4 or 5 ? random.Next(1, Math.Min(length, 12) + 1) : 0;
        int number = mechanism is 1 or 5 ? random.Next(2) : form == 2 ? random.Next(16) : 0;
        byte[] record = Record((byte)mechanism, site, length, number, mechanism != 5 ? Names + 1 : 0, other, size, at);
        record[2] = (byte)form;
        record[3] = (byte)(mechanism is 2 or 5 ? random.Next(2) : 0);
        record[24] = (byte)(mechanism is 1 or 6 ? 1 : 0);
        return record;
    }

    private CodeImage Image(int bitness) => new(bitness, new CodeSegment("code", new VirtualAddress(Code), _code));

    private CodeImage Image() => new(new VirtualAddress(Code), _code);

    private SiteRecords Key() => Read(Record(2, Code + Site, 5, name: Names + 1, target: Code + 0x40));

    private SiteRecords Read(byte[] record) => SiteRecords.Read(
        Image(), new CodeSegment("sites", new VirtualAddress(Table), record),
        s_names);

    /// <summary>One record, so far from the table's start. See docs/site-sections.md for the fields.</summary>
    private static byte[] Record(
        byte mechanism, ulong site, int length, int number = 0, ulong name = 0, ulong target = 0, int size = 0, int at = 0)
    {
        byte[] record = new byte[32];
        (record[0], record[1]) = (1, mechanism);
        Refer(4, site);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(8), (ushort)length);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(10), (ushort)number);
        Refer(12, name);
        Refer(16, target);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(20), (ushort)size);
        return record;

        void Refer(int field, ulong address) => BinaryPrimitives.WriteInt32LittleEndian(
            record.AsSpan(field), address == 0 ? 0 : (int)((long)address - (long)Table - at - field));
    }
}
