using System.Buffers.Binary;
using PvPatch.Linux.Audit;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Audit;

public sealed class PrototypeTests
{
    /// <summary>What gcc passes and returns for a function of two longs and such a result: the convention's rule of 16 bytes.</summary>
    [Theory]
    [InlineData(0, 2, 0)]
    [InlineData(4, 2, 1)]
    [InlineData(8, 2, 1)]
    [InlineData(16, 2, 2)]
    [InlineData(24, 3, 1)] // the address of the result in rdi, and again in rax
    public void A_large_result_takes_an_argument_register(int size, int arguments, int results)
    {
        var btf = new TestBtf();
        int number = btf.Int("long", 8);
        int result = size == 0 ? 0 : btf.Struct("result", size);
        Assert.Equal(new FunctionPrototype(arguments, results), Read(btf, result, number, number));
    }

    [Fact]
    public void There_are_six_argument_registers_at_most()
    {
        var btf = new TestBtf();
        int number = btf.Int("long", 8);
        int result = btf.Struct("result", 40);
        Assert.Equal(new FunctionPrototype(6, 1), Read(btf, result, [.. Enumerable.Repeat(number, 6)]));
    }

    private static FunctionPrototype? Read(TestBtf btf, int result, params int[] arguments)
    {
        byte[] parameters = new byte[8 * arguments.Length]; // name, type
        for (int i = 0; i < arguments.Length; i++)
        {
            BinaryPrimitives.WriteInt32LittleEndian(parameters.AsSpan((8 * i) + 4), arguments[i]);
        }

        int prototype = btf.Other(13, arguments.Length, "", (uint)result, parameters); // FUNC_PROTO
        btf.Other(12, 0, "function", (uint)prototype); // FUNC
        byte[] elf = new TestElf().Code(".text", 0x1000, 0xc3).Data(".BTF", 0x2000, btf.Build()).Build();
        return new BtfPrototypes(ElfImage.Read(elf)).OfFunction("function");
    }
}
