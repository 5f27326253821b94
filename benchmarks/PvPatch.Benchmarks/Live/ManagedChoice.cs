using System.Runtime.CompilerServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The same loads behind what C# has for a choice that hardly ever changes: sixteen in a row, repeated. Compiled once and fully, when the
/// choices are known: a <c>static readonly bool</c> is a constant then, and can never change again.
/// </summary>
internal sealed class ManagedChoice
{
    private const int InRow = 16;

    private readonly int[] _data;
    private readonly int _at;
    private readonly int _count;
    private readonly Func<int> _delegate;
    internal volatile bool _volatile;

    public ManagedChoice(int sites, int at)
    {
        _count = sites;
        _at = at;
        _data = new int[at + 1];
        _data[at] = 3;
        _delegate = () => _data[_at];
        Choose(Choices.Fixed);
        RuntimeHelpers.RunClassConstructor(typeof(Choices).TypeHandle);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long None(long loops)
    {
        int[] data = _data;
        int at = _at;
        int sum = 0;
        for (long left = loops * _count; left > 0; left -= InRow)
        {
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
            sum += data[at];
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long ReadOnly(long loops)
    {
        int[] data = _data;
        int at = _at;
        int sum = 0;
        for (long left = loops * _count; left > 0; left -= InRow)
        {
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
            sum += Choices.Fixed ? 1 : data[at];
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long Plain(long loops)
    {
        int[] data = _data;
        int at = _at;
        int sum = 0;
        for (long left = loops * _count; left > 0; left -= InRow)
        {
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
            sum += Choices.Plain ? 1 : data[at];
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long Volatile(long loops)
    {
        int[] data = _data;
        int at = _at;
        int sum = 0;
        for (long left = loops * _count; left > 0; left -= InRow)
        {
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
            sum += _volatile ? 1 : data[at];
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long Delegate(long loops)
    {
        Func<int> f = _delegate;
        int sum = 0;
        for (long left = loops * _count; left > 0; left -= InRow)
        {
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
            sum += f();
        }

        return sum;
    }

    /// <summary>Changes the one choice that another thread may change.</summary>
    private void Choose(bool value) => _volatile = value;

    private static class Choices
    {
        public static readonly bool Fixed = Environment.ProcessorCount < 0;

        public static bool Plain { get; set; } = Environment.ProcessorCount < 0;
    }
}
