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

    /// <summary>The bytes, to write. They are not at <see cref="Address"/>: displacements are computed from that, stores go here.</summary>
    /// <exception cref="PatchException">The arena was disposed of, or the room committed or given back (PV8004).</exception>
    public Span<byte> Span
    {
        get
        {
            CheckOpen();
            return _arena.Memory.Span(Address, Capacity);
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

        return Commit(length, slots, records, foreign);
    }

    /// <summary>Makes the code a block without sites. It is ready to run when the call returns.</summary>
    /// <param name="length">Bytes written.</param>
    /// <returns>The block.</returns>
    public CodeBlock Commit(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Capacity);
        return Commit(length, slots: null, [], foreign: null);
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

    internal CodeBlock Commit(int length, SlotTable? slots, SiteRecord[] records, Dictionary<int, byte[]>? foreign)
    {
        CheckOpen();
        int used = Round(length);
        var block = new CodeBlock(_arena, slots, Address, length, used, records);
        for (int i = 0; i < records.Length; i++)
        {
            Register(block, slots!, i, foreign);
        }

        using PatchLock.Held held = slots is null ? default : _arena.PatchLock.Enter(wait: true);
        _arena.CheckUsable();
        slots?.Admit(records, _arena.RunBarrier);

        // Other processors may have something of these bytes from before: as code, where the room was used once; by reading ahead, always.
        if (!_arena.RunBarrier() && _reused)
        {
            slots?.Kinds.Remove(records);
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.NoBarrier, "without a barrier used memory can't hold new code") with { Address = Address });
        }

        _done = true;
        _arena.Memory.GiveCode(Address + used, _taken - used, wereRun: false);
        _arena.Registry.Add(block);
        LiveMetrics.SitesAdded(records.Length);
        return block;
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
