using System.Diagnostics;
using System.Globalization;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Fuzz;

/// <summary>
/// Feeds damaged input to a reader and holds it to its promises: a result or a diagnostic and never an exception, an end within
/// the hang limit, and no more memory than a small multiple of the input and a constant.
/// </summary>
/// <remarks>
/// <c>PVPATCH_FUZZ_COUNT</c> sets the number of inputs for each reader, <c>PVPATCH_FUZZ_SEED</c> the first seed. Input number i is
/// made from seed + i alone, so a failure is repeated by its seed and a count of 1.
/// </remarks>
internal static class FuzzRun
{
    // Finds hangs, not slowness: an input takes microseconds.
    private static readonly TimeSpan s_hangLimit = TimeSpan.FromSeconds(30);

    /// <summary>The seed of the first input; a new one in each run.</summary>
    public static int FirstSeed => Setting("PVPATCH_FUZZ_SEED") ?? TestSeed.Value;

    public static int Count(int usual) => Setting("PVPATCH_FUZZ_COUNT") ?? usual;

    /// <summary>Runs a reader over damaged copies of valid inputs.</summary>
    /// <param name="valid">The valid inputs, which the reader must take.</param>
    /// <param name="count">The number of damaged inputs.</param>
    /// <param name="read">The reader: gives its diagnostic, or null where it took the input.</param>
    /// <param name="bytesPerByte">How many bytes it may allocate for every byte of input.</param>
    /// <param name="constant">How many bytes it may allocate besides.</param>
    /// <param name="codes">How the codes of its diagnostics start.</param>
    public static void Run(
        IReadOnlyList<byte[]> valid, int count, Func<byte[], PatchDiagnostic?> read, int bytesPerByte, int constant, string codes = "PV6")
    {
        foreach (byte[] input in valid)
        {
            Assert.Null(read([.. input]));
        }

        int first = FirstSeed;
        int taken = 0;
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            var mutator = new Mutator(seed);
            byte[] input = seed % 8 == 0 ? mutator.RandomBytes(4096) : mutator.Mutate(valid[(int)((uint)seed % (uint)valid.Count)]);
            taken += RunOne(input, seed, read, bytesPerByte, constant, codes) ? 1 : 0;
        }

        Assert.True(count < 1000 || (taken > 0 && taken < count),
            $"{taken} of {count} inputs were taken: the damage says nothing about the reader");
    }

    private static bool RunOne(byte[] input, int seed, Func<byte[], PatchDiagnostic?> read, int bytesPerByte, int constant, string codes)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"PVPATCH_FUZZ_SEED={seed} ({input.Length} bytes)");
        long before = GC.GetAllocatedBytesForCurrentThread();
        var watch = Stopwatch.StartNew();
        PatchDiagnostic? error;
        try
        {
            error = read(input);
        }
        catch (Exception exception)
        {
            throw new InvalidOperationException($"{name} made the reader throw", exception);
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(watch.Elapsed < s_hangLimit, $"{name} took {watch.Elapsed}");
        Assert.True(allocated <= ((long)input.Length * bytesPerByte) + constant, $"{name} allocated {allocated} bytes");
        Assert.True(error is null || (error.Code.StartsWith(codes, StringComparison.Ordinal) && error.Severity == DiagnosticSeverity.Error),
            $"{name}: {error}");
        return error is null;
    }

    private static int? Setting(string name) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.Integer, CultureInfo.InvariantCulture, out int value)
            ? value : null;
}
