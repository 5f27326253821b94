using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace PvPatch.Plans;

/// <summary>
/// The loops over a run of a plan's sites, each of which is handled as one vector of 16 bytes: none is in the overflow, and 16 bytes can be
/// read and written at each.
/// </summary>
/// <remarks>
/// They call nothing, so that all they work with stays in registers, and they are optimised when they are first called: a plan is most often
/// applied once, and they are over before a second tier would help. Arrays and image are pinned: an address is one addition to a pointer,
/// and the forms are read where they are used. <c>origin</c> is where the byte of run address 0 would be.
/// </remarks>
internal static unsafe class SiteLoops
{
    /// <summary>The first site that does not hold its old bytes; <paramref name="end"/> where there is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public static PlanEntry* HoldOld(PlanEntry* entry, PlanEntry* end, OldForm* olds, byte* origin)
    {
        // One branch for four sites; where it says that one differs, they are asked again one by one.
        for (PlanEntry* four = end - 3; entry < four; entry += 4)
        {
            if ((OldDifference(entry, olds, origin) | OldDifference(entry + 1, olds, origin)
                | OldDifference(entry + 2, olds, origin) | OldDifference(entry + 3, olds, origin)) != Vector128<byte>.Zero)
            {
                break;
            }
        }

        while (entry < end && OldDifference(entry, olds, origin) == Vector128<byte>.Zero)
        {
            entry++;
        }

        return entry;
    }

    /// <summary>The first site that does not hold its new bytes; <paramref name="end"/> where there is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public static PlanEntry* HoldNew(PlanEntry* entry, PlanEntry* end, OldForm* olds, NewForm* news, byte* origin)
    {
        for (PlanEntry* four = end - 3; entry < four; entry += 4)
        {
            if ((NewDifference(entry, olds, news, origin) | NewDifference(entry + 1, olds, news, origin)
                | NewDifference(entry + 2, olds, news, origin) | NewDifference(entry + 3, olds, news, origin)) != Vector128<byte>.Zero)
            {
                break;
            }
        }

        while (entry < end && NewDifference(entry, olds, news, origin) == Vector128<byte>.Zero)
        {
            entry++;
        }

        return entry;
    }

    /// <summary>Writes sites that hold their old bytes. Needs AVX-512.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public static void StoreNew(PlanEntry* entry, PlanEntry* end, NewForm* news, byte* origin)
    {
        // A masked store touches the site's bytes and no others; none where the site keeps its bytes.
        for (PlanEntry* four = end - 3; entry < four; entry += 4)
        {
            StoreNew(entry, news, origin);
            StoreNew(entry + 1, news, origin);
            StoreNew(entry + 2, news, origin);
            StoreNew(entry + 3, news, origin);
        }

        for (; entry < end; entry++)
        {
            StoreNew(entry, news, origin);
        }
    }

    /// <summary>Gives sites that hold their new bytes the old ones. Needs AVX-512.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public static void StoreOld(PlanEntry* entry, PlanEntry* end, OldForm* olds, NewForm* news, byte* origin)
    {
        for (; entry < end; entry++)
        {
            Avx512BW.VL.MaskStore(origin + entry->Address, news[entry->New].Written, olds[entry->Old].With(entry->Field));
        }
    }

    /// <summary>As <see cref="StoreNew(PlanEntry*, PlanEntry*, NewForm*, byte*)"/> or <see cref="StoreOld"/>, on any processor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    public static void StoreBlended(PlanEntry* entry, PlanEntry* end, OldForm* olds, NewForm* news, byte* origin, bool toNew)
    {
        // Eight sites are read, then written, so that no load waits for the store of the site before, which often reaches into the next
        // one's 16 bytes. Bytes behind a site are stored back as they were read. That is right because sites are stored in order of
        // address: where they belong to a later site, that one's store follows (sites o and p, a dot for other code):
        //
        //   as it was       oooooo..ppppppp.........
        //   store of o      OOOOOO..pppppppp
        //   store of p              PPPPPPP.........
        //
        // Nobody else runs or writes the image now; a blend would be just as wrong as any other store if somebody did.
        byte* unused = stackalloc byte[sizeof(Vector128<byte>)];
        for (PlanEntry* eight = end - 7; entry < eight; entry += 8)
        {
            Vector128<byte> b0 = Blend(entry, olds, news, origin, toNew);
            Vector128<byte> b1 = Blend(entry + 1, olds, news, origin, toNew);
            Vector128<byte> b2 = Blend(entry + 2, olds, news, origin, toNew);
            Vector128<byte> b3 = Blend(entry + 3, olds, news, origin, toNew);
            Vector128<byte> b4 = Blend(entry + 4, olds, news, origin, toNew);
            Vector128<byte> b5 = Blend(entry + 5, olds, news, origin, toNew);
            Vector128<byte> b6 = Blend(entry + 6, olds, news, origin, toNew);
            Vector128<byte> b7 = Blend(entry + 7, olds, news, origin, toNew);
            Store(b0, entry, news, origin, unused);
            Store(b1, entry + 1, news, origin, unused);
            Store(b2, entry + 2, news, origin, unused);
            Store(b3, entry + 3, news, origin, unused);
            Store(b4, entry + 4, news, origin, unused);
            Store(b5, entry + 5, news, origin, unused);
            Store(b6, entry + 6, news, origin, unused);
            Store(b7, entry + 7, news, origin, unused);
        }

        for (; entry < end; entry++)
        {
            Store(Blend(entry, olds, news, origin, toNew), entry, news, origin, unused);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreNew(PlanEntry* entry, NewForm* news, byte* origin)
    {
        NewForm* form = news + entry->New;
        Avx512BW.VL.MaskStore(origin + entry->Address, form->Written, form->At(entry->Address));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<byte> OldDifference(PlanEntry* entry, OldForm* olds, byte* origin)
    {
        OldForm* old = olds + entry->Old;
        return (Vector128.Load(origin + entry->Address) ^ old->With(entry->Field)) & old->Whole;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<byte> NewDifference(PlanEntry* entry, OldForm* olds, NewForm* news, byte* origin)
    {
        OldForm* old = olds + entry->Old;
        Vector128<byte> wanted = news[entry->New].At(entry->Address, old->With(entry->Field));
        return (Vector128.Load(origin + entry->Address) ^ wanted) & old->Whole;
    }

    /// <summary>What stands at a site and behind it, with the site's wanted bytes; the same where it keeps them.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<byte> Blend(PlanEntry* entry, OldForm* olds, NewForm* news, byte* origin, bool toNew)
    {
        NewForm* form = news + entry->New;
        Vector128<byte> there = Vector128.Load(origin + entry->Address);
        return toNew ? form->At(entry->Address, there)
            : Vector128.ConditionalSelect(form->Written, olds[entry->Old].With(entry->Field), there);
    }

    /// <summary>
    /// Stores where the site does not keep its bytes, else to where nobody looks: an emulator that watches its code pages pays dearly for
    /// each store. A branch could not be foretold.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector128<byte> bytes, PlanEntry* entry, NewForm* news, byte* origin, byte* unused) =>
        Vector128.Store(bytes, unused + ((nint)(origin + entry->Address - unused) & -(nint)news[entry->New].Changes));
}
