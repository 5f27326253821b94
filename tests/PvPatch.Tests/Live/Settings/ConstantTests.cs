using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Constants: every width of field, values that fit and values that do not, blocks emitted before and after.</summary>
public sealed unsafe class ConstantTests : IDisposable
{
    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly LivePatcher _live;

    public ConstantTests() => _live = new LivePatcher(_arena);

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    // Bytes from GNU as: movabs $0x123456789abcdef0,%rax; mov $0x9abcdef0,%eax; cmpq $-2,%rdi with a 32-bit field; add $-128,%edi;
    // mov 0x12345678(%rdi),%eax; movl $0x12345678,0x7f(%rdi).
    public static TheoryData<string, long, string> Rows => new()
    {
        { "mov rax,imm64", 0x123456789abcdef0, "48 b8 f0 de bc 9a 78 56 34 12" },
        { "mov eax,imm32", 0x9abcdef0, "b8 f0 de bc 9a" },
        { "cmp rdi,imm32", -2, "48 81 ff fe ff ff ff" },
        { "add edi,imm8", -128, "83 c7 80" },
        { "mov eax,[rdi+disp32]", 0x12345678, "8b 87 78 56 34 12" },
        { "mov [rdi+0x7f],imm32", 0x12345678, "c7 47 7f 78 56 34 12" },
    };

    [Theory]
    [MemberData(nameof(Rows))]
    public void The_field_of_an_instruction_holds_the_value(string instruction, long value, string bytes)
    {
        var constant = new CodeConstant("c");
        CodeBlock block = Emit((s, a) => s.Constant(a, constant, b => Write(b, instruction)));
        _live.Apply(c => c.Set(constant, value));
        Assert.Equal(bytes, HexBytes.Format(block[0].ToArray()));
        Assert.Equal((value, PatchAction.Constant, LiveForm.OneInstruction), (constant.Value, block[0].Action, block[0].Form));
        Assert.NotEqual(SiteClass.QuiescentOnly, block[0].Class);
        CodeBlock after = Emit((s, a) => s.Constant(a, constant, b => Write(b, instruction)));
        Assert.Equal(bytes, HexBytes.Format(after[0].ToArray()));
        Assert.Single(CapstoneReader.Disassemble(after[0].ToArray(), 0, 64));
    }

    /// <summary>What an instruction means by its field is the value, whatever the field's width and sign.</summary>
    [Fact]
    public void The_instruction_has_the_value_as_its_operand()
    {
        Random random = TestSeed.NewRandom();
        Action<Assembler>[] all =
        [
            static a => a.mov(ax, 1), static a => a.add(ax, 1), static a => a.cmp(di, 0x1234), static a => a.mov(al, 1), static a => a.push(1),
            static a => a.push(0x12345), static a => a.imul(rax, rdi, 1), static a => a.imul(ax, di, 0x1234), static a => a.test(edi, 1),
            static a => a.mov(rdi, 0x7fff_ffffL), static a => a.mov(__word_ptr[rdi], 1), static a => a.mov(__qword_ptr[rdi + 4], 0x12345),
            static a => a.bt(rax, 5), static a => a.ret(8), static a => a.and(r15, 0x1234567), static a => a.mov(__byte_ptr[rdi], 1),
            static a => a.@lock.add(__dword_ptr[rdi], 1), static a => a.vpshufd(ymm1, ymm2, 3), static a => a.mov(__dword_ptr.fs[0x1234], 5),
        ];
        Action<Assembler>[] displaced =
        [
            static a => a.mov(eax, __[rdi + 1]), static a => a.lea(rax, __[rdi + rsi * 8 + 0x12345]), static a => a.mov(rax, __[0x1122334455667788]),
            static a => a.cmp(__dword_ptr[rdi + 1], 0x12345), static a => a.mov(__word_ptr[rdi + 0x12345], 1), static a => a.vmovaps(ymm1, __[rdi + 32]),
            static a => a.vmovups(zmm1, __[rdi + 33]), static a => a.call(__qword_ptr[rdi + 8]), static a => a.mov(eax, __.gs[0x100]),
        ];
        for (int round = 0; round < 5000; round++)
        {
            bool displacement = round % 2 == 0;
            Action<Assembler>[] from = displacement ? displaced : all;
            var a = new Assembler(64);
            from[random.Next(from.Length)](a);
            Assert.True(ConstantCode.TryCreate(a.Instructions[0], displacement, out ConstantCode? code, out string? error), error);
            long value = random.Next(4) switch { 0 => code.Least, 1 => code.Most, _ => random.NextInt64(code.Least, code.Most) };
            byte[] bytes = code.With(value).ToArray(code.Length);
            Instruction read = Decoder.Create(64, bytes).Decode();
            Assert.Equal((code.Length, a.Instructions[0].Code), (read.Length, read.Code));
            ulong operand = displacement ? read.MemoryDisplacement64 : read.GetImmediate(read.OpCount - 1);
            int width = displacement ? 64 : read.GetOpKind(read.OpCount - 1) switch
            {
                OpKind.Immediate8 => 8,
                OpKind.Immediate16 or OpKind.Immediate8to16 => 16,
                OpKind.Immediate32 or OpKind.Immediate8to32 => 32,
                _ => 64,
            };
            Assert.Equal((ulong)value << 64 - width, operand << 64 - width);
            Assert.Single(CapstoneReader.Disassemble(bytes, 0, 64));
        }
    }

    [Theory]
    [InlineData("mov rax,imm64", long.MinValue, long.MaxValue)]
    [InlineData("mov eax,imm32", int.MinValue, uint.MaxValue)]
    [InlineData("cmp rdi,imm32", int.MinValue, int.MaxValue)]
    [InlineData("add edi,imm8", sbyte.MinValue, sbyte.MaxValue)]
    [InlineData("mov eax,[rdi+disp32]", int.MinValue, int.MaxValue)]
    public void A_value_that_does_not_fit_is_refused(string instruction, long least, long most)
    {
        var constant = new CodeConstant("c");
        CodeBlock wide = Emit((s, a) => s.Constant(a, constant, static b => b.mov(rax, 0L)));
        CodeBlock block = Emit((s, a) => s.Constant(a, constant, b => Write(b, instruction)));
        foreach (long good in new[] { least, most })
        {
            Assert.Equal(2, _live.Apply(c => c.Set(constant, good)).Count);
        }

        byte[] before = [.. wide.ToArray(), .. block.ToArray()];
        foreach (long bad in (long[])(least == long.MinValue ? [] : [least - 1, most + 1])) // 8 bytes hold any value
        {
            Assert.False(_live.TryApply(c => c.Set(constant, bad), null, out ApplyResult result));
            Assert.Equal(("PV8039", block[0].Address), (result.Diagnostics[0].Code, result.Diagnostics[0].Address));
            Assert.Equal(before, (byte[])[.. wide.ToArray(), .. block.ToArray()]);
        }

        Assert.Equal(most, constant.Value);
    }

    [Fact]
    public void Generated_code_sees_the_value_and_a_site_that_can_not_have_it_is_not_emitted()
    {
        var constant = new CodeConstant("answer", 42);
        CodeBlock block = Emit((s, a) =>
        {
            s.Constant(a, constant, static b => b.mov(rax, 0L));
            a.ret();
        });
        long Run() => ((delegate* unmanaged<long>)block.Address.Value)();
        Assert.Equal(42, Run());
        _live.Apply(c => c.Set(constant, long.MinValue + 7));
        Assert.Equal(long.MinValue + 7, Run());
        Assert.Equal("PV8039", Assert.Throws<PatchException>(
            () => Emit((s, a) => s.Constant(a, constant, static b => b.add(edi, 1)))).Diagnostic.Code);
        Assert.Equal(1, _live.Apply(c => c.Set(constant, 300)).Count); // nothing of the block that was refused is left
        Assert.Equal(300, Run());
    }

    [Theory]
    [InlineData("nothing")]
    [InlineData("two")]
    [InlineData("ret")]
    [InlineData("label")]
    [InlineData("mov eax,edi")]
    public void What_has_no_field_is_refused(string what)
    {
        var a = new Assembler(64);
        Label label = a.CreateLabel();
        var sites = new SiteEmitter();
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => sites.Constant(a, new CodeConstant("c"), b =>
        {
            switch (what)
            {
                case "two":
                    b.mov(eax, 1);
                    b.mov(eax, 1);
                    break;
                case "ret":
                    b.ret();
                    break;
                case "label":
                    b.jmp(label);
                    break;
                case "mov eax,edi":
                    b.mov(eax, edi);
                    break;
            }
        })).Diagnostic.Code);
        Assert.Equal(0, sites.Count);
        Assert.Empty(a.Instructions);
    }

    private static void Write(Assembler a, string instruction)
    {
        switch (instruction)
        {
            case "mov rax,imm64":
                a.mov(rax, 0L);
                break;
            case "mov eax,imm32":
                a.mov(eax, 0);
                break;
            case "cmp rdi,imm32":
                a.cmp(rdi, int.MaxValue);
                break;
            case "add edi,imm8":
                a.add(edi, 1);
                break;
            case "mov eax,[rdi+disp32]":
                a.mov(eax, __[rdi + int.MaxValue]);
                break;
            default:
                a.mov(__dword_ptr[rdi + 0x7f], 1);
                break;
        }
    }

    private CodeBlock Emit(Action<SiteEmitter, Assembler> write)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        write(sites, a);
        return _arena.Emit(a, sites);
    }
}
