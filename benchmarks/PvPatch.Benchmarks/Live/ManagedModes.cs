using System.Runtime.CompilerServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// One loop of compiled C#, <c>sum += a[i] ^ i</c>, and the ways C# has for a hook in it that is off. The runtime compiles them as it does any
/// method: tiers and profile are left on. Each loop is there once for each type TCopy, since where code comes to lie decides as much as what it
/// does.
/// </summary>
internal static unsafe class ManagedModes
{
    private static readonly bool s_readOnly = Environment.GetEnvironmentVariable("PVPATCH_BENCHMARK_HOOK") is not null;

    private static delegate*<int*, int, long> s_pointer = &Loop<Off, int>;
    private static Func<nint, int, long> s_method = static (a, count) => Loop<Off, int>((int*)a, count);
    private static bool s_flag;
    private static bool s_volatile;
    private static Action<int>? s_none;
    private static Action<int> s_empty = Nothing;
    private static long s_hooked;

    private interface IMode
    {
        public static abstract bool IsOn { get; }
    }

    /// <summary>Keeps the runtime from taking what never changes for what can't.</summary>
    public static void Flip(bool on)
    {
        (s_flag, s_volatile, s_none) = (on, on, on ? Hook : null);
        s_empty = on ? Hook : Nothing;
        s_pointer = on ? &Loop<On, int> : &Loop<Off, int>;
        s_method = on ? static (a, count) => Loop<On, int>((int*)a, count) : static (a, count) => Loop<Off, int>((int*)a, count);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long NoHook<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long ReadOnly<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            if (s_readOnly)
            {
                Hook(i);
            }

            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long Flag<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            if (s_flag)
            {
                Hook(i);
            }

            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long VolatileField<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            if (Volatile.Read(ref s_volatile))
            {
                Hook(i);
            }

            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long DelegateOrNull<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            s_none?.Invoke(i);
            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    public static long EmptyDelegate<TCopy>(int* a, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            s_empty(i);
            sum += a[i] ^ i;
        }

        return sum;
    }

    public static long WholeOn(int* a, int count) => Loop<On, int>(a, count);

    public static long WholeOff<TCopy>(int* a, int count) => Loop<Off, TCopy>(a, count);

    public static long ByPointer<TCopy>(int* a, int count) => s_pointer(a, count);

    public static long ByDelegate<TCopy>(int* a, int count) => s_method((nint)a, count);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static long Loop<TMode, TCopy>(int* a, int count)
        where TMode : struct, IMode
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            if (TMode.IsOn)
            {
                Hook(i);
            }

            sum += a[i] ^ i;
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Hook(int i) => s_hooked += i;

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Nothing(int i)
    {
    }

    private readonly struct On : IMode
    {
        public static bool IsOn => true;
    }

    private readonly struct Off : IMode
    {
        public static bool IsOn => false;
    }
}
