using PvPatch.Linux.BootText;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Memory;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>The state inferred from text: what most sites say, and nothing where none says anything.</summary>
public sealed class InferenceTests
{
    private const ulong Sites = TextSample.Code + 0x1000;
    private const ulong Key = TextSample.Data + 0x20;
    private const ulong First = TextSample.Code + 0x100;
    private const ulong Second = TextSample.Code + 0x140;
    private const ulong FileThunk = TextSample.Code + 0x180;
    private const ulong Thunk = TextSample.Code + 0x1c0;
    private const int On = 70;
    private const int Off = 72;
    private const int Either = 74;

    private static readonly TextMechanism[] s_mechanisms = [TextMechanism.StaticCall, TextMechanism.Return, TextMechanism.Alternative];

    [Fact]
    public void Features_are_those_that_give_the_bytes()
    {
        TextSample sample = Sample();
        BootState state = BootStateInference.Infer(sample.Open(TextRules.Linux612), Memory(Booted(sample)));
        Assert.True(state.Features.Has(On));
        Assert.False(state.Features.Has(Off));
        Assert.Null(state.Features.Has(Either));
        Assert.True(state.Features.Has(ReturnForm.Rethunk));
        Assert.Equal(new VirtualAddress(Thunk), state.ReturnThunk);
        Assert.Equal(new VirtualAddress(Second), state.StaticCalls[Key]);
    }

    [Theory]
    [InlineData(0x00)] // an alternative
    [InlineData(0x80)] // a static call
    [InlineData(0xc0)] // a return
    public void One_site_that_says_something_else_is_outvoted_and_differs(int at)
    {
        TextSample sample = Sample();
        TextImage booted = Booted(sample);
        Assert.True(booted.TryGet(Sites + (ulong)at, 3, out ReadOnlySpan<byte> there));
        booted.TryWrite(Sites + (ulong)at, [(byte)(there[0] ^ 1), there[1], there[2]], TextMechanism.None);
        KernelMemory memory = Memory(booted);
        TextKernel kernel = sample.Open(TextRules.Linux612);

        BootState state = BootStateInference.Infer(kernel, memory);

        Assert.True(TextPredictor.TryPredict(kernel, state, out TextImage? text, out _, s_mechanisms.ToHashSet()));
        TextDifference difference = Assert.Single(TextComparison.Compare(text, memory).Differences);
        Assert.Equal(Sites + (ulong)at, difference.Address.Value);
        Assert.True(state.Features.Has(On));
        Assert.Equal(new VirtualAddress(Thunk), state.ReturnThunk);
    }

    [Fact]
    public void A_static_call_of_no_function_is_not_believed()
    {
        TextSample sample = Sample();
        TextImage booted = Booted(sample);
        foreach (ulong at in (ulong[])[0x80, 0x90, 0xa0])
        {
            byte[] call = Bytes.FromHex(TextSample.Assembled("call f", Sites + at, ("f", Second + 1)));
            booted.TryWrite(Sites + at, call, TextMechanism.None);
        }

        KernelMemory memory = Memory(booted);
        TextKernel kernel = sample.Open(TextRules.Linux612);
        BootState state = BootStateInference.Infer(kernel, memory);
        Assert.Equal(new VirtualAddress(First), state.StaticCalls[Key]); // the file's
        Assert.True(TextPredictor.TryPredict(kernel, state, out TextImage? text, out _, s_mechanisms.ToHashSet()));
        Assert.Equal(3, TextComparison.Compare(text, memory).Differences.Count);
    }

    [Fact]
    public void Without_memory_nothing_is_known()
    {
        TextKernel kernel = Sample().Open(TextRules.Linux612);
        var source = new BytesMemorySource(new byte[16]);
        Assert.True(MemoryFile.TryOpen(source, "memory", 0x1000, out MemoryFile? file, out _));
        var memory = new KernelMemory(file, MemorySpace.Create(source, [new MemorySegment(0x1000, 0, 16)]), 0, 64) { Slide = 0 };
        BootState state = BootStateInference.Infer(kernel, memory);
        Assert.Null(state.Features.Has(On));
        Assert.Null(state.ReturnThunk);
        Assert.Null(state.IsUniprocessor);
        Assert.Empty(state.Keys);
        Assert.Empty(state.StaticCalls);
    }

    private static TextSample Sample()
    {
        var sample = new TextSample { Features = [On, ReturnForm.Rethunk], ReturnThunk = Thunk };
        sample.Symbol("__x86_return_thunk", FileThunk).Symbol("thunk", Thunk).Symbol("first", First).Symbol("second", Second);
        for (ulong i = 0; i < 3; i++)
        {
            sample.Put(Sites + (i * 16), 0xfb, 0x90, 0x90).Put(Sites + 0x40 + (i * 16), 0xfb, 0x90, 0x90);
            sample.Kernel.AddAlternative(Sites + (i * 16), 3, On, false, 0xfa).AddAlternative(Sites + 0x40 + (i * 16), 3, Off, false, 0xfa);
            sample.PutBranch(Sites + 0x80 + (i * 16), First, 0xe8).Record(".static_call_sites", Sites + 0x80 + (i * 16), Key);
            sample.PutBranch(Sites + 0xc0 + (i * 16), FileThunk, 0xe9).Record(".return_sites", Sites + 0xc0 + (i * 16));
        }

        sample.Put(Sites + 0x200, 0xfa, 0x90, 0x90).Put(Key, BitConverter.GetBytes(First));
        sample.Kernel.AddAlternative(Sites + 0x200, 3, Either, false, 0xfa);
        sample.StaticCalls.Add(Key, Second);
        return sample;
    }

    private static TextImage Booted(TextSample sample)
    {
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux612, s_mechanisms);
        Assert.Empty(findings);
        return text;
    }

    private static KernelMemory Memory(TextImage text)
    {
        var segments = new List<MemorySegment>();
        var bytes = new List<byte>();
        foreach (TextSection section in text.Sections)
        {
            segments.Add(new MemorySegment(section.Address.Value, bytes.Count, section.Length));
            bytes.AddRange(section.Bytes);
        }

        var source = new BytesMemorySource([.. bytes]);
        Assert.True(MemoryFile.TryOpen(source, "memory", 0x1000, out MemoryFile? file, out _));
        return new KernelMemory(file, MemorySpace.Create(source, segments), 0, 64) { Slide = 0 };
    }
}
