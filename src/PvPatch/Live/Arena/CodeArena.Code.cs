using Iced.Intel;

namespace PvPatch.Live;

// Code comes and goes.
public sealed partial class CodeArena
{
    /// <summary>Puts what an assembler holds into the arena, with the sites emitted into it. The code is ready to run when the call returns.</summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="sites">The sites emitted into it; cleared, ready for the next block.</param>
    /// <returns>The block, its sites indirect: they call what their slots hold.</returns>
    /// <exception cref="PatchException">
    /// The code does not assemble, the sites are another assembler's, or not all of its sites are the emitter's (PV8014), no room (PV8001), refused by the system (PV8003), disposed (PV8004).
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
        return Emit(assembler, [sites], out labels)[0];
    }

    /// <summary>As <see cref="Emit(Assembler, SiteEmitter)"/>, for code with the sites of several emitters: of several layouts, or of several parts of a host.</summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="sites">All emitters that emitted into it; cleared, ready for the next block.</param>
    /// <param name="labels">Where the assembler's labels are.</param>
    /// <returns>A block for each emitter, all of the same code: same address, same length. Retiring one retires them all.</returns>
    /// <exception cref="PatchException">As for one emitter.</exception>
    public IReadOnlyList<CodeBlock> Emit(Assembler assembler, IReadOnlyList<SiteEmitter> sites, out CodeLabels labels)
    {
        ArgumentNullException.ThrowIfNull(assembler);
        ArgumentNullException.ThrowIfNull(sites);
        using ArenaMemory.Usage usage = Memory.Use();
        SiteEmitter[] emitters = [.. sites];
        CodeBlock[] blocks = new BlockAssembly(this, assembler, emitters).Run(out labels);
        foreach (SiteEmitter emitter in emitters)
        {
            emitter.Clear();
        }

        return blocks;
    }

    /// <summary>Puts what an assembler holds into the arena: code without sites, such as the way in from the host. Ready to run when the call returns.</summary>
    /// <param name="assembler">The assembler; not changed. It holds no sites.</param>
    /// <returns>The block, which has no sites.</returns>
    /// <exception cref="PatchException">The code does not assemble (PV8014), no room (PV8001), refused by the system (PV8003), disposed (PV8004).</exception>
    public CodeBlock Emit(Assembler assembler) => Emit(assembler, out _);

    /// <summary>As <see cref="Emit(Assembler)"/>, with the addresses of the assembler's labels.</summary>
    /// <param name="assembler">The assembler; not changed.</param>
    /// <param name="labels">Where the assembler's labels are.</param>
    /// <returns>The block.</returns>
    public CodeBlock Emit(Assembler assembler, out CodeLabels labels)
    {
        return Emit(assembler, [], out labels)[0];
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
    /// Gives a block up: its sites are not written any more, and its bytes are reused once no executor can be inside. Nothing may enter it from now on: sites
    /// that are linked to it have been unlinked before, see <see cref="SiteScope.LinkedInto"/>.
    /// </summary>
    /// <param name="block">A block of this arena.</param>
    /// <exception cref="PatchException">Sites are linked to it (PV8032); another arena's, or retired before (PV8013); disposed (PV8004); called from inside a batch (PV8020).</exception>
    public void Retire(CodeBlock block)
    {
        ArgumentNullException.ThrowIfNull(block);
        Retire([block]);
    }

    /// <summary>Gives blocks up, as <see cref="Retire(CodeBlock)"/> does, all at once: for one barrier and one grace period.</summary>
    /// <param name="blocks">Blocks of this arena, each once.</param>
    /// <exception cref="PatchException">
    /// Sites of other blocks are linked to one (PV8032), one is another arena's, retired before or named twice (PV8013), and then none is given up; disposed (PV8004); called from inside a batch (PV8020).
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

            Registry.Drop(all);
            Reclaimer.Add([.. all.Where(static b => ReferenceEquals(b, b.SameCode[0]))]);
        }

        _ = Reclaimer.Run();
    }

    /// <summary>Reuses what was given up and nobody can be inside any more. <see cref="Retire(CodeBlock)"/> does so too.</summary>
    /// <returns>Bytes made free.</returns>
    public long Reclaim()
    {
        using ArenaMemory.Usage usage = Memory.Use();
        return Reclaimer.Run();
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
