using Iced.Intel;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Kernel;

/// <summary>
/// The kernel's page tables: four levels in 64-bit code, two in 32-bit code. A fork shares every page with the parent and takes the right
/// to write from both, 64 stores into page tables in lazy MMU mode; the first to write to a page gets a copy by a page fault.
/// </summary>
internal static class AddressSpaces
{
    /// <summary>Bits of an address above those that number a page and an entry of the last table, a level each.</summary>
    private static readonly (string Level, int Shift)[] s_levels64 = [("pgd", 39), ("pud", 30), ("pmd", 21)];

    private static readonly (string Level, int Shift)[] s_levels32 = [("pgd", 22)];

    public static void Write(GuestAssembler a)
    {
        WriteCreate(a);
        WriteWalk(a);
        WriteMapWindow(a);
        WriteFork(a);
        WritePageFault(a);
        WriteAllocate(a, "allocate_table", NextTable);
        WriteAllocate(a, "allocate_frame", NextFrame);
    }

    private static (string Level, int Shift)[] LevelsOf(GuestAssembler a) => a.IsWide ? s_levels64 : s_levels32;

    private static void WriteCreate(GuestAssembler a)
    {
        // create_address_space(task): empty tables for the window, down to the last level.
        (string Level, int Shift)[] levels = LevelsOf(a);
        a.Enter("create_address_space");
        a.Move(a.S0, a.A0);
        a.Call("allocate_table");
        a.Move(a.S1, a.Ret);
        a.Store(a.S0, TaskPgd, a.Ret);
        WriteNewTable(a, "mmu.pgd_alloc");
        for (int i = 0; i < levels.Length; i++)
        {
            // A table one level down, announced, then entered in the one above it.
            string below = i + 1 < levels.Length ? levels[i + 1].Level : "pte";
            a.Call("allocate_table");
            a.Move(a.S2, a.Ret);
            a.Move(a.S3, a.S1);
            a.Move(a.S1, a.S2);
            WriteNewTable(a, "mmu.alloc_" + below);
            a.Move(a.A0, a.S2);
            a.Do(Alu.Or, a.A0, PageBits);
            a.Site($"mmu.make_{levels[i].Level}");
            a.Move(a.A1, a.Ret);
            a.Move(a.A0, a.S3);
            a.Do(Alu.Add, a.A0, (int)(Window >> levels[i].Shift & EntryMask(a)) * a.Word);

            // Without levels between, the first level's entries are what is called pmd.
            a.Site(a.IsWide ? $"mmu.set_{levels[i].Level}" : "mmu.set_pmd");
        }

        a.Leave();
    }

    private static void WriteNewTable(GuestAssembler a, string slot)
    {
        a.Move(a.A1, a.S1);
        a.ShiftRight(a.A1, 12);
        a.Move(a.A0, a.S0);
        a.Site(slot);
    }

    private static void WriteWalk(GuestAssembler a)
    {
        // walk(pgd, address): where the address's entry in the last table is.
        a.Enter("walk");
        a.Move(a.S0, a.A1);
        a.Move(a.S1, a.A0);
        foreach ((string level, int shift) in LevelsOf(a))
        {
            WriteIndex(a, shift);
            a.Load(a.A0, a.S1);
            a.Site($"mmu.{level}_val");
            a.Do(Alu.And, a.Ret, ~0xfff);
            a.Move(a.S1, a.Ret);
        }

        WriteIndex(a, 12);
        a.Move(a.Ret, a.S1);
        a.Leave();
    }

    /// <summary>S1 += index of the address in S0 at a level, times the size of an entry.</summary>
    private static void WriteIndex(GuestAssembler a, int shift)
    {
        a.Move(a.T, a.S0);
        a.ShiftRight(a.T, shift);
        a.Do(Alu.And, a.T, (int)EntryMask(a));
        a.ShiftLeft(a.T, a.IsWide ? 3 : 2);
        a.Do(Alu.Add, a.S1, a.T);
    }

    private static void WriteMapWindow(GuestAssembler a)
    {
        // map_window(): the first task's pages, each with a number of its own in it, and the clock's behind them.
        a.Enter("map_window");
        a.Load(a.A0, GuestMemory.Task(0) + TaskPgd);
        a.Set(a.A1, Window);
        a.Call("walk");
        a.Move(a.S0, a.Ret);
        a.Set(a.S1, 0);
        a.Site("mmu.lazy_mode.enter");
        a.Function("map_window.page");
        a.Call("allocate_frame");
        a.Move(a.A1, a.S1);
        a.Do(Alu.Add, a.A1, 0x1000);
        a.Store32(a.Ret, 0, a.A1);
        a.Move(a.A0, a.Ret);
        a.Do(Alu.Or, a.A0, PageBits);
        WriteSetPte(a, a.S0);
        a.Do(Alu.Add, a.S0, a.Word);
        a.Do(Alu.Add, a.S1, 1);
        a.Do(Alu.Cmp, a.S1, Pages);
        a.JumpIfNot("map_window.page");
        a.Set(a.A0, ClockFrames + PageBits);
        WriteSetPte(a, a.S0);
        a.Site("mmu.lazy_mode.leave");
        a.Store(ClockEntry, a.S0);
        a.Leave();
    }

    /// <summary>The value in A0 becomes an entry, which is put where <paramref name="where"/> says.</summary>
    private static void WriteSetPte(GuestAssembler a, Register where)
    {
        a.Site("mmu.make_pte");
        a.Move(a.A1, a.Ret);
        a.Move(a.A0, where);
        a.Site("mmu.set_pte");
    }

    private static void WriteFork(GuestAssembler a)
    {
        // fork(child): a child of the first task.
        a.Enter("fork");
        a.Move(a.S0, a.A0);
        a.Call("create_address_space");
        a.Set(a.A0, GuestMemory.Task(0));
        a.Move(a.A1, a.S0);
        a.Site("mmu.dup_mmap");
        a.Load(a.A0, GuestMemory.Task(0) + TaskPgd);
        a.Set(a.A1, Window);
        a.Call("walk");
        a.Move(a.S1, a.Ret);
        a.Load(a.A0, a.S0, TaskPgd);
        a.Set(a.A1, Window);
        a.Call("walk");
        a.Move(a.S2, a.Ret);
        a.Set(a.S3, Pages);
        a.Function("remap"); // here the remap begins
        a.Site("mmu.lazy_mode.enter");
        a.Function("fork.page");
        a.Load(a.A0, a.S1);
        a.Site("mmu.pte_val");
        a.Do(Alu.And, a.Ret, ~WritableBit);
        a.Push(a.Ret);
        a.Move(a.A0, a.Ret);
        WriteSetPte(a, a.S2);
        a.Pop(a.A0);
        WriteSetPte(a, a.S1);
        a.Do(Alu.Add, a.S1, a.Word);
        a.Do(Alu.Add, a.S2, a.Word);
        a.Do(Alu.Sub, a.S3, 1);
        a.JumpIfNot("fork.page");

        // Entries that a translation may be kept of lost a right. The flush is put off like them, so it comes behind them.
        a.Site("mmu.flush_tlb_user");
        a.Site("mmu.lazy_mode.leave");
        a.Function("remap.end");

        // A stack as if the child had called schedule: saved flags, S3 to S0, and where to go on.
        a.Load(a.T, a.S0, TaskStack);
        a.SetFunction(a.Ret, "task");
        a.Store(a.T, -a.Word, a.Ret);
        a.Do(Alu.Sub, a.T, 6 * a.Word);
        a.StoreNumber(a.T, 0, InterruptFlag);
        a.Store(a.S0, TaskSp, a.T);
        a.Do(Alu.Add, Running, 1);
        a.Leave();
    }

    private static void WritePageFault(GuestAssembler a)
    {
        a.Function("page_fault");
        Entries.WriteScratch(a, isSave: true);
        a.Site("mmu.read_cr2");
        a.Move(a.A0, a.Ret);
        a.Call("copy_page");
        Entries.WriteScratch(a, isSave: false);
        a.Do(Alu.Add, a.Sp, a.Word); // the error code
        a.Site("cpu.iret");

        // copy_page(address): the page becomes the task's own.
        a.Enter("copy_page");
        a.Move(a.S0, a.A0);
        a.Site("mmu.read_cr3");
        a.Move(a.A0, a.Ret);
        a.Move(a.A1, a.S0);
        a.Call("walk");
        a.Move(a.S1, a.Ret);
        a.Call("allocate_frame");
        a.Move(a.S2, a.Ret);
        a.Load(a.A0, a.S1);
        a.Site("mmu.pte_val");
        a.Do(Alu.And, a.Ret, ~0xfff);
        for (int i = 0; i < 16; i += a.Word)
        {
            a.Load(a.T, a.Ret, i); // all that anybody writes to a page
            a.Store(a.S2, i, a.T);
        }

        a.Move(a.A0, a.S2);
        a.Do(Alu.Or, a.A0, PageBits);
        WriteSetPte(a, a.S1);
        a.Move(a.A0, a.S0);
        a.Site("mmu.flush_tlb_single");
        a.Do(Alu.Add, Faults, 1);
        a.Leave();
    }

    private static void WriteAllocate(GuestAssembler a, string name, ulong next)
    {
        a.Function(name);
        a.Load(a.Ret, next);
        a.Do(Alu.Add, next, 0x1000);
        a.Asm.ret();
    }

    private static uint EntryMask(GuestAssembler a) => a.IsWide ? 511u : 1023u;
}
