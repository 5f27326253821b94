using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

// Code comes, is found by address, and goes.
public sealed partial class CodeArena
{
    /// <summary>
    /// Puts what an assembler holds into the arena, with the sites emitted into it. The code is ready to run when the call returns.
    /// </summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="sites">The sites emitted into it; cleared, ready for the next block.</param>
    /// <returns>The block, its sites indirect: they call what their slots hold.</returns>
    /// <remarks>
    /// May be called from inside generated code, by a translator for instance. A block with sites waits for the end of the batch that is
    /// under way; a batch at quiescence waits in turn until this thread is outside. With a time limit (<see cref="SwitchOptions.Timeout"/>)
    /// the batch is given up then and the call goes on; without one the call is refused (PV8021): leave the code, or declare a safepoint,
    /// and emit again.
    /// </remarks>
    /// <exception cref="PatchException">
    /// The code does not assemble, the sites are another assembler's, or not all of its sites are the emitter's (PV8014), no room (PV8001),
    /// refused by the system (PV8003), disposed (PV8004), a batch waits for this thread without a time limit (PV8021).
    /// </exception>
    public CodeBlock Emit(Assembler assembler, SiteEmitter sites) => Emit(assembler, sites, out _);

    /// <summary>As <see cref="Emit(Assembler, SiteEmitter)"/>, with the addresses of the assembler's labels.</summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="sites">The sites emitted into it; cleared, ready for the next block.</param>
    /// <param name="labels">Where the assembler's labels are.</param>
    /// <returns>The block.</returns>
    public CodeBlock Emit(Assembler assembler, SiteEmitter sites, out CodeLabels labels)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return Assemble(assembler, [sites], out labels)[0];
    }

    /// <summary>
    /// As <see cref="Emit(Assembler, SiteEmitter)"/>, for code with the sites of several emitters: of several layouts, or of several parts
    /// of a host.
    /// </summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="sites">All emitters that emitted into it; cleared, ready for the next block.</param>
    /// <param name="labels">Where the assembler's labels are.</param>
    /// <returns>A block for each emitter, all of the same code: same address, same length. Retiring one retires them all.</returns>
    /// <exception cref="PatchException">As for one emitter.</exception>
    public IReadOnlyList<CodeBlock> Emit(Assembler assembler, IReadOnlyList<SiteEmitter> sites, out CodeLabels labels)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return Assemble(assembler, [.. sites], out labels);
    }

    /// <summary>
    /// Puts what an assembler holds into the arena: code without sites, such as the way in from the host. Ready to run when the call
    /// returns.
    /// </summary>
    /// <param name="assembler">The assembler; not changed. It holds no sites.</param>
    /// <returns>The block, which has no sites.</returns>
    /// <exception cref="PatchException">
    /// The code does not assemble (PV8014), no room (PV8001), refused by the system (PV8003), disposed (PV8004).
    /// </exception>
    public CodeBlock Emit(Assembler assembler) => Emit(assembler, out _);

    /// <summary>As <see cref="Emit(Assembler)"/>, with the addresses of the assembler's labels.</summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="labels">Where the assembler's labels are.</param>
    /// <returns>The block.</returns>
    public CodeBlock Emit(Assembler assembler, out CodeLabels labels)
    {
        return Assemble(assembler, [], out labels)[0];
    }

    /// <summary>Takes room for code of a host's own emitter, which must know where it will run before it is finished.</summary>
    /// <param name="capacity">Bytes at most.</param>
    /// <returns>The room: write to it, then commit or dispose of it.</returns>
    /// <exception cref="PatchException">No room (PV8001), refused by the system (PV8003), disposed (PV8004).</exception>
    public CodeReservation Allocate(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(capacity);
        CheckUsable();
        return new CodeReservation(this, capacity);
    }

    /// <summary>
    /// Gives a block up: its sites are not written any more, and its bytes are reused once no executor can be inside. Nothing may enter it
    /// from now on: sites that are linked to it have been unlinked before, see <see cref="SiteScope.LinkedInto"/>, and slots that lead to
    /// it switched to something else.
    /// </summary>
    /// <param name="block">A block of this arena.</param>
    /// <exception cref="PatchException">
    /// Sites are linked to it, or a static call or slot leads to it (PV8032); another arena's, or retired before (PV8013); disposed
    /// (PV8004); called from inside a batch (PV8020); a batch waits for this thread without a time limit (PV8021).
    /// </exception>
    public void Retire(CodeBlock block)
    {
        ArgumentNullException.ThrowIfNull(block);
        Retire([block]);
    }

    /// <summary>Gives blocks up, as <see cref="Retire(CodeBlock)"/> does, all at once: for one barrier and one grace period.</summary>
    /// <param name="blocks">Blocks of this arena, each once.</param>
    /// <exception cref="PatchException">
    /// Sites of other blocks are linked to one, or a static call or slot leads to one (PV8032), one is another arena's, retired before or
    /// named twice (PV8013), and then none is given up; disposed (PV8004); called from inside a batch (PV8020); a batch waits for this thread without a time limit (PV8021).
    /// </exception>
    public void Retire(IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        using ArenaMemory.Usage usage = Memory.Use();
        CodeBlock[] given = [.. blocks];
        using (PatchLock.Enter(wait: true))
        {
            CheckUsable();
            CheckRetirable(given);
            CodeBlock[] all = [.. given.SelectMany(static b => b.SameCode).Distinct()];
            if (Ledger.TakeOut(all) is PatchDiagnostic linked)
            {
                throw new PatchException(linked);
            }

            Registry.Retire(all);
        }

        _ = Registry.Reclaim();
    }

    /// <summary>Reuses what was given up and nobody can be inside any more. <see cref="Retire(CodeBlock)"/> does so too.</summary>
    /// <returns>Bytes made free.</returns>
    public long Reclaim()
    {
        using ArenaMemory.Usage usage = Memory.Use();
        return Registry.Reclaim();
    }

    /// <summary>The blocks that were not retired, a copy.</summary>
    public IReadOnlyList<CodeBlock> Blocks => Registry.ToArray();

    /// <summary>
    /// The site whose operation an instruction belongs to: one of the site's own bytes, of one of its islands, or of its forwarding island.
    /// For crash handlers and profilers: takes no lock, allocates nothing, and may be called from any thread while others emit, patch and
    /// retire.
    /// </summary>
    /// <param name="address">A run address: of an instruction, or anywhere inside one.</param>
    /// <param name="site">The site. Of a block that was retired too, until its bytes are reused; see <see cref="LiveSite.State"/>.</param>
    /// <returns>Whether it belongs to one. Functions the arena makes for slots and thunks belong to none.</returns>
    public bool TryFindSite(VirtualAddress address, out LiveSite site)
    {
        if (Islands.TryFindSite(address, out VirtualAddress owner))
        {
            address = owner;
        }

        // Code with sites of several layouts has a block for each of these.
        foreach (CodeBlock block in Registry.InPageOf(address))
        {
            if (block.Contains(address) && block.TryFindSite((uint)(address - Address), out site))
            {
                return true;
            }
        }

        site = default;
        return false;
    }

    /// <summary>
    /// The site that made a call, by the return address the call left: for functions called from sites. As <see cref="TryFindSite"/>
    /// otherwise.
    /// </summary>
    /// <param name="returnAddress">
    /// The return address: <see cref="LiveSite.End"/> for a call in the site itself. One in a thunk, where a target destroys more than its
    /// site allows, tells nothing; <see cref="Operation.PassingCaller"/> gives the target the one behind it.
    /// </param>
    /// <param name="site">The site.</param>
    /// <returns>Whether a site made the call.</returns>
    public bool TryFindCaller(VirtualAddress returnAddress, out LiveSite site) => TryFindSite(returnAddress + -1, out site);

    /// <summary>
    /// The slot whose trap stands at an address: what the instruction pointer of a SIGILL names where a slot was called that has no
    /// operation, or was never switched. The trap is <c>ud2</c> and behind it the slot's index in two bytes, for a core dump; a site that
    /// was switched to no operation holds <c>ud2</c> itself. Takes no lock and allocates nothing.
    /// </summary>
    /// <param name="address">
    /// Run address of the trap. The caller's return address, on top of the stack, names the site (<see cref="TryFindCaller"/>).
    /// </param>
    /// <param name="slot">The slot.</param>
    /// <returns>Whether it is one of the arena's traps.</returns>
    public bool TryFindTrap(VirtualAddress address, [NotNullWhen(true)] out OpSlot? slot)
    {
        foreach (SlotTable slots in Memory.IsDisposed ? [] : SlotTables)
        {
            if (slots.TryFindTrap(address, out int index))
            {
                slot = slots.Layout[index];
                return true;
            }
        }

        slot = TryFindSite(address, out LiveSite site) && site.Action == Plans.PatchAction.Trap ? site.Slot : null;
        return slot is not null;
    }

    /// <summary>The block at an address, also a retired one until its bytes are reused. Takes no lock and allocates nothing.</summary>
    /// <param name="address">A run address.</param>
    /// <param name="block">The block; of several for the same code the first.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryFindBlock(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block) => Registry.TryFind(address, out block);

    /// <summary>
    /// A stretch of the arena as assembly, with what is known of each address: sites, their class, state and form, slots, islands.
    /// </summary>
    /// <param name="address">Run address of the first instruction.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>One line an instruction.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The stretch is not inside the arena's committed code.</exception>
    public string Dump(VirtualAddress address, int length)
    {
        using ArenaMemory.Usage usage = Memory.Use();
        return ArenaDump.Format(this, address, length);
    }

    /// <summary>A block as assembly. See <see cref="Dump(VirtualAddress, int)"/>.</summary>
    /// <param name="block">A block of this arena.</param>
    /// <returns>One line an instruction.</returns>
    public string Dump(CodeBlock block)
    {
        ArgumentNullException.ThrowIfNull(block);
        return Dump(block.Address, block.Length);
    }

    private CodeBlock[] Assemble(Assembler assembler, SiteEmitter[] emitters, out CodeLabels labels)
    {
        ArgumentNullException.ThrowIfNull(assembler);
        using ArenaMemory.Usage usage = Memory.Use();
        for (bool more = true; more;)
        {
            more = false;
            foreach (SiteEmitter emitter in emitters)
            {
                more |= emitter?.EmitRest(assembler) == true;
            }
        }

        CodeBlock[] blocks = new BlockAssembly(this, assembler, emitters).Run(out labels);
        foreach (SiteEmitter emitter in emitters)
        {
            emitter.Clear();
        }

        return blocks;
    }

    private void CheckRetirable(CodeBlock[] blocks)
    {
        var seen = new HashSet<CodeBlock>(blocks.Length);
        foreach (CodeBlock block in blocks)
        {
            string? wrong = block is null || !ReferenceEquals(block.Arena, this) ? "the block is another arena's"
                : block.IsRetired ? "the block was retired before"
                : !seen.Add(block) ? "the block is named twice"
                : null;
            if (wrong is not null)
            {
                throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.BlockRetired, wrong) with { Address = block?.Address });
            }
        }
    }
}
