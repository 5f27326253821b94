using System.Globalization;
using System.Security.Cryptography;
using PvPatch.Linux.Tests.Fuzz;
using PvPatch.Tests.Shared;

namespace PvPatch.KernelTests.Damage;

/// <summary>
/// Damages a real file in place, gives it to a reader and mends it again, many times: a result or a diagnostic and never an
/// exception, an end within the hang limit, and not many times the memory the whole file takes.
/// </summary>
/// <remarks>
/// <c>PVPATCH_FUZZ_COUNT</c> sets the number of inputs of each reader, over all its files; <c>PVPATCH_FUZZ_SEED</c> the first
/// seed. Input number i is made from seed + i alone, so a failure is repeated by its seed and a count of 1.
/// </remarks>
internal sealed class DamageRun(RealReader reader)
{
    private const int AllocationFactor = 4;
    private const long AllocationConstant = 8 << 20;

    // Finds hangs, not slowness: an input takes milliseconds at most. Processor time, as a long run may be put to sleep.
    private static readonly TimeSpan s_hangLimit = TimeSpan.FromSeconds(60);

    private readonly SortedDictionary<string, int> _codes = [];

    public int Count { get; private set; }

    public int Taken { get; private set; }

    public string Summary => string.Create(
        CultureInfo.InvariantCulture,
        $"{reader.Name}: {Count} inputs, {Taken} taken; {string.Join(", ", _codes.Select(static c => $"{c.Key} {c.Value}"))}");

    /// <summary>The seed of the first input; a new one in each run.</summary>
    public static int FirstSeed => Setting("PVPATCH_FUZZ_SEED") ?? TestSeed.Value;

    /// <summary>The number of inputs a reader gets.</summary>
    public static int CountFor(int usual) => Setting("PVPATCH_FUZZ_COUNT") ?? usual;

    /// <summary>Gives a reader damaged forms of a file, which is whole again afterwards.</summary>
    /// <param name="file">A file the reader takes.</param>
    /// <param name="count">The number of damaged forms.</param>
    public void Give(byte[] file, int count)
    {
        (int Start, int Length)[] regions = [.. reader.Regions(file).Select(static r => (r.Start, r.Length))];
        Assert.NotEmpty(regions);
        byte[] before = SHA256.HashData(file);
        Assert.Null(reader.Read(file)); // once before it is measured, for all that is made but once
        long whole = Measure(file, "the whole file", long.MaxValue, out PatchDiagnostic? error);
        Assert.Null(error);

        int first = FirstSeed;
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            string name = string.Create(CultureInfo.InvariantCulture, $"{reader.Name}, PVPATCH_FUZZ_SEED={seed}");
            var damage = new TableDamage(seed);
            damage.Do(file, regions);
            _ = Measure(Cut(file, seed), name, (whole * AllocationFactor) + AllocationConstant, out error);
            damage.Undo(file);
            Count++;
            if (error is null)
            {
                Taken++;
                continue;
            }

            Assert.True(
                error.Severity == DiagnosticSeverity.Error && error.Code.StartsWith("PV", StringComparison.Ordinal), $"{name}: {error}");
            _codes[error.Code] = _codes.GetValueOrDefault(error.Code) + 1;
        }

        Assert.Equal(before, SHA256.HashData(file));
        Assert.Null(reader.Read(file));
    }

    /// <summary>One input of 32 is cut short as well.</summary>
    private static Memory<byte> Cut(byte[] file, int seed) => seed % 32 == 0 ? file.AsMemory(0, new Random(seed).Next(file.Length)) : file;

    private long Measure(Memory<byte> file, string name, long limit, out PatchDiagnostic? error)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        TimeSpan start = Environment.CpuUsage.TotalTime;
        try
        {
            error = reader.Read(file);
        }
        catch (Exception exception)
        {
            throw new InvalidOperationException($"{name} made the reader throw", exception);
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        TimeSpan taken = Environment.CpuUsage.TotalTime - start;
        Assert.True(taken < s_hangLimit, $"{name} took {taken} of processor time");
        Assert.True(allocated <= limit, $"{name} allocated {allocated} bytes, more than {limit}");
        return allocated;
    }

    private static int? Setting(string name) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.Integer, CultureInfo.InvariantCulture, out int value)
            ? value : null;
}
