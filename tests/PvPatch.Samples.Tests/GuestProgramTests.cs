using RiscV.Demo;
using RiscV.Host;
using RiscV.Translator;

namespace PvPatch.Samples.Tests;

/// <summary>
/// Real programs, compiled from C. What they print is known from elsewhere: published check values, or the programs check themselves.
/// </summary>
public sealed class GuestProgramTests
{
    public static TheoryData<string, string, string> Programs
    {
        get
        {
            var data = new TheoryData<string, string, string>();
            foreach (string optimization in new[] { "-O0", "-O2" })
            {
                data.Add("sieve", optimization, "primes 9592\n");
                data.Add("crc32", optimization, "check cbf43926\nbytes b11de6a1\n");
                data.Add("sort", optimization, "sorted 87a82d4d40feb3e7\n");
                data.Add("matrix", optimization, "fibonacci(90) 210345902\n");
                data.Add("strings", optimization, "god yzal eht revo spmuj xof nworb kciuq eht\nhash 6bbf45ef2e3a5f05\n");
                data.Add("selfmade", optimization, "sum 500500\n");
                data.Add("selfcheck", optimization, "checks 31\n");
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Programs))]
    public void a_compiled_program_gives_the_same_on_every_engine(string name, string optimization, string expected)
    {
        GuestCompiler.Need();
        GuestImage image = Load(GuestCompiler.Build(name, optimization));
        RunRecord reference = Engines.Run(Engines.Interpreter, image);
        Assert.Equal(StopReason.Exited, reference.Stop);
        Assert.Equal(expected, reference.Output);
        Assert.Equal(0, reference.ExitCode);
        foreach (string backend in Engines.Backends)
        {
            Assert.Equal(reference, Engines.Run(backend, image, new AccessCounter()));
        }
    }

    /// <summary>The programs of the benchmark, a few rounds of each: they check what they compute.</summary>
    [Theory]
    [InlineData("calls", 2000)]
    [InlineData("crc32", 2)]
    [InlineData("matrix", 1)]
    [InlineData("recursion", 8)]
    [InlineData("sha256", 30)]
    [InlineData("sieve", 1)]
    [InlineData("sort", 1)]
    [InlineData("strings", 20)]
    public void a_program_of_the_benchmark_gives_the_same_on_every_engine(string name, int rounds)
    {
        GuestCompiler.Need();
        GuestImage image = Load(GuestCompiler.Build("speed/" + name, "-O2", $"-DROUNDS={rounds}"));
        RunRecord reference = Engines.Run(Engines.Interpreter, image);
        Assert.Equal((StopReason.Exited, 0), (reference.Stop, reference.ExitCode));
        foreach (string backend in Engines.Backends)
        {
            Assert.Equal(reference, Engines.Run(backend, image));
        }

        using var guest = new Guest(image);
        using var engine = new TranslatorEngine(guest, patchable: false);
        Assert.Equal(reference, RunRecord.Of(guest, engine));
    }

    [Fact]
    public void a_compiled_program_does_not_notice_that_it_is_switched()
    {
        GuestCompiler.Need();
        GuestImage image = Load(GuestCompiler.Build("sort", "-O0"));
        RunRecord reference = Engines.Run(Engines.Interpreter, image);
        for (int i = 0; i < 10; i++)
        {
            using var guest = new Guest(image);
            using var engine = new TranslatorEngine(guest, new AccessCounter());
            using var switcher = new Switcher(engine, TimeSpan.Zero);
            RunRecord found = RunRecord.Of(guest, engine);
            switcher.Stop();
            Assert.Null(switcher.Failure);
            Assert.Equal(reference, found);
        }
    }

    private static GuestImage Load(byte[] file)
    {
        Assert.True(ElfReader.TryRead(file, out GuestImage? image, out string? error), error);
        return image;
    }
}
