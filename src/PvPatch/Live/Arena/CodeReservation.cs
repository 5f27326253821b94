using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>Room for code of a host's own emitter. Nothing of it runs before <see cref="Commit(int, OpsLayout, SiteTable)"/>; disposed of without that, it is given back.</summary>
public sealed unsafe class CodeReservation : IDisposable
{
    private readonly CodeArena _arena;
    private readonly int _taken;
    private readonly bool _reused;
    private byte[]? _bytes; // not of the arena: what a host keeps of them can't outlive anything
    private bool _done;

    internal CodeReservation(CodeArena arena, int capacity)
    {
        _arena = arena;
        Capacity = capacity;
        _taken = Round(capacity);
        if (!arena.Memory.TryTakeCode(_taken, SiteClassifier.LineSize, out VirtualAddress address, out _reused, out PatchDiagnostic? error))
        {
            throw new PatchException(error!);
        }

        Address = address;
    }

    /// <summary>Run address of the first byte, a multiple of 64.</summary>
    public VirtualAddress Address { get; }

    /// <summary>Bytes at most.</summary>
    public int Capacity { get; }

    /// <summary>
    /// The bytes, to write, zero at first. They are not at <see cref="Address"/>: displacements are computed from that, stores go here, and committing copies them there.
    /// </summary>
    /// <exception cref="PatchException">The arena was disposed of, or the room committed or given back (PV8004).</exception>
    public Span<byte> Span
    {
        get
        {
            CheckOpen();
            return _bytes ??= new byte[Capacity];
        }
    }

    /// <summary>Makes the code a block and its sites live ones. The code is ready to run when the call returns.</summary>
    /// <param name="length">Bytes written.</param>
    /// <param name="layout">The layout whose slots the sites name.</param>
    /// <param name="sites">
    /// The sites by run address. Each holds whole instructions, one of them an indirect call or jump; to be changed live, exactly that one, padded by prefixes
    /// before it. A call through this arena's slots must name the slot its site says; a call through any other memory is the host's to keep in step.
    /// </param>
    /// <returns>The block.</returns>
    /// <exception cref="PatchException">A site lies outside (PV8010), is no call (PV8011), goes through another slot (PV3002), names none (PV1006, PV1007).</exception>
    public CodeBlock Commit(int length, OpsLayout layout, SiteTable sites)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(sites);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Capacity);
        CheckOpen();
        SlotTable slots = _arena.SlotsOf(layout);
        var reader = new SiteReader(_arena, slots, Address, Span[..length]);
        var foreign = new Dictionary<int, byte[]>();
        var records = new SiteRecord[sites.Count];
        for (int i = 0; i < records.Length; i++)
        {
            reader.Read(sites[i], i, ref records[i], foreign);
        }

        return Commit(Span[..length], [new SiteGroup(slots, records, foreign)])[0];
    }

    /// <summary>Makes the code a block without sites. It is ready to run when the call returns.</summary>
    /// <param name="length">Bytes written.</param>
    /// <returns>The block.</returns>
    public CodeBlock Commit(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Capacity);
        return Commit(Span[..length], [new SiteGroup(null, [], null)])[0];
    }

    /// <summary>Gives the room back if it was not committed.</summary>
    public void Dispose()
    {
        if (!_done && !_arena.Memory.IsDisposed)
        {
            _arena.Memory.GiveCode(Address, _taken, wereRun: false);
        }

        _done = true;
    }

    /// <summary>Makes code blocks, one for each group of sites.</summary>
    internal CodeBlock[] Commit(ReadOnlySpan<byte> code, ReadOnlySpan<SiteGroup> groups)
    {
        CheckOpen();
        using ArenaMemory.Usage usage = _arena.Memory.Use();
        code.CopyTo(_arena.Memory.Span(Address, code.Length));
        int used = Round(code.Length);
        var blocks = new CodeBlock[groups.Length];
        for (int i = 0; i < blocks.Length; i++)
        {
            blocks[i] = new CodeBlock(_arena, groups[i].Slots, Address, code.Length, i == 0 ? used : 0, groups[i].Records);
            Register(blocks[i], groups[i]);
        }

        foreach (CodeBlock block in blocks)
        {
            block.SameCode = blocks.Length > 1 ? blocks : null;
        }

        using PatchLock.Held held = Array.Exists(blocks, static b => b.Slots is not null) ? _arena.PatchLock.Enter(wait: true) : default;
        _arena.CheckUsable();
        Admit(groups);

        // Other processors may have something of these bytes from before: as code, where the room was used once; by reading ahead, always.
        if (!_arena.RunBarrier() && _reused)
        {
            Dismiss(groups);
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.NoBarrier, "without a barrier used memory can't hold new code") with { Address = Address });
        }

        _done = true;
        _bytes = null;
        _arena.Memory.GiveCode(Address + used, _taken - used, wereRun: false);
        foreach (CodeBlock block in blocks)
        {
            _arena.Registry.Add(block);
            LiveMetrics.SitesAdded(block.SiteCount);
        }

        return blocks;
    }

    /// <summary>Lets all groups in or none. Under the patch lock.</summary>
    private void Admit(ReadOnlySpan<SiteGroup> groups)
    {
        for (int i = 0; i < groups.Length; i++)
        {
            try
            {
                groups[i].Slots?.Admit(groups[i].Records, _arena.RunBarrier);
            }
            catch (PatchException)
            {
                Dismiss(groups[..i]);
                throw;
            }
        }
    }

    private static void Dismiss(ReadOnlySpan<SiteGroup> groups)
    {
        foreach (ref readonly SiteGroup group in groups)
        {
            group.Slots?.Kinds.Remove(group.Records);
        }
    }

    private void Register(CodeBlock block, in SiteGroup group)
    {
        for (int i = 0; i < block.SiteCount; i++)
        {
            Register(block, group.Slots!, i, group.Foreign);
        }
    }

    private void Register(CodeBlock block, SlotTable slots, int index, Dictionary<int, byte[]>? foreign)
    {
        ref SiteRecord record = ref block.Records[index];
        int budget = slots.Kinds[record.Kind].Budget;
        VirtualAddress address = block.AddressOf(index);
        bool single = budget <= SiteClassifier.MaxLiveLength;
        if (foreign is not null && foreign.TryGetValue(index, out byte[]? original))
        {
            record.IsForeign = true;
            block.KeepOriginal(index, original);
            single = SiteReader.IsSingle(original);
        }

        record.Class = SiteClassifier.Classify(address, budget, single, _arena.HasAtomic16, _arena.TrustsCacheLines);
        if (budget <= 16)
        {
            if (budget > sizeof(ulong))
            {
                block.MakeRoomBehind();
            }

            block.SetBytes(index, SiteBytes.Read(_arena.Memory.WriteView(address), budget));
        }
    }

    private void CheckOpen()
    {
        _arena.CheckUsable();
        if (_done)
        {
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.ArenaDisposed, "the room was committed or given back before") with { Address = Address });
        }
    }

    private static int Round(int length) => checked(length + ArenaMemory.Slack + SiteClassifier.LineSize - 1) & -SiteClassifier.LineSize;
}

/// <summary>Sites of one layout in new code.</summary>
/// <param name="Slots">Their slots; nothing where there are no sites.</param>
/// <param name="Records">The sites, with place and kind.</param>
/// <param name="Foreign">The bytes of those that an emitter would have written otherwise.</param>
internal readonly record struct SiteGroup(SlotTable? Slots, SiteRecord[] Records, Dictionary<int, byte[]>? Foreign);
