using System.Runtime.CompilerServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The same loads through what C# has for choosing an operation at run time: 16 calls in a row, repeated. Compiled once and fully, because
/// the runtime's profile would see that there is only one target and inline it, which is not what is measured here.
/// </summary>
internal sealed unsafe class ManagedDispatch(int count)
{
    private const int InRow = 16;
    private const int Far = 0x400 / sizeof(int);

    private readonly ILoad _interface = new Load();
    private readonly LoadDelegate _delegate = new Load().Run;
    private readonly delegate*<int*, int> _pointer = &Static;

    private delegate int LoadDelegate(int* data);

    private interface ILoad
    {
        public int Run(int* data);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long FunctionPointer(int* data, long loops)
    {
        int sum = 0;
        delegate*<int*, int> f = _pointer;
        for (long left = loops * count; left > 0; left -= InRow)
        {
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long Delegate(int* data, long loops)
    {
        int sum = 0;
        LoadDelegate f = _delegate;
        for (long left = loops * count; left > 0; left -= InRow)
        {
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
            sum += f(data);
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public long Interface(int* data, long loops)
    {
        int sum = 0;
        ILoad f = _interface;
        for (long left = loops * count; left > 0; left -= InRow)
        {
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
            sum += f.Run(data);
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    private static int Static(int* data) => data[Far];

    private sealed class Load : ILoad
    {
        [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
        public int Run(int* data) => data[Far];
    }
}
