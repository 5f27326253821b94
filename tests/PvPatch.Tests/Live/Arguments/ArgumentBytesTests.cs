using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Live.Arguments;

/// <summary>The instructions that load a site's argument, and what leads to them, as GNU as writes them.</summary>
public sealed unsafe class ArgumentBytesTests
{
    [Fact]
    public void Every_value_arrives_in_every_register_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        var pieces = new List<AssemblyPiece>();
        var found = new List<byte[]>();
        string[] names32 = ["eax", "ecx", "edx", "ebx", "", "ebp", "esi", "edi", .. Enumerable.Range(8, 8).Select(static n => $"r{n}d")];
        string[] names64 = ["rax", "rcx", "rdx", "rbx", "", "rbp", "rsi", "rdi", .. Enumerable.Range(8, 8).Select(static n => $"r{n}")];
        for (int number = 0; number < 16; number++)
        {
            for (int i = 0; i < EchoCode.Values.Count && number != 4; i++)
            {
                ulong value = EchoCode.Values[i];
                int other = number == 3 ? 15 : 3;
                var argument = new SiteArgument(value)
                {
                    Register = RegisterSet.General(number),
                    AddressRegister = i % 2 == 0 ? null : RegisterSet.General(other),
                };
                LiveSite site = code.Emit(argument, RegisterSet.All, start: i)[0];
                Assert.Equal(argument, site.Argument);
                byte[] bytes = site.ToArray();
                Assert.Equal([0x2e, 0xe8], bytes[..2]);
                VirtualAddress stub = site.End + BitConverter.ToInt32(bytes.AsSpan(2));
                (string mov, int length) = value <= uint.MaxValue ? ($"mov $0x{value:x},%{names32[number]}", number < 8 ? 5 : 6)
                    : value >= 0xffffffff_80000000 ? ($"mov ${(long)value},%{names64[number]}", 7)
                    : ($"movabs $0x{value:x},%{names64[number]}", 10);
                string lea = i % 2 == 0 ? "" : $"; lea {site.Address - (stub + length + 7)}(%rip),%{names64[other]}";
                int end = length + (i % 2 == 0 ? 6 : 13);
                pieces.Add(new AssemblyPiece(
                    stub.Value, $"{mov}{lea}; jmp *{code.Slots.AddressOf(code.Layout[0]) - (stub + end)}(%rip)"));
                pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; call 0x{stub.Value:x}"));
                found.Add(code.Arena.Memory.Span(stub, 32).ToArray());
                found.Add(bytes);
            }
        }

        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(64, pieces);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(found[i], 0, expected[i].Length));
        }
    }

    [Fact]
    public void The_argument_is_loaded_before_each_form_as_GNU_as_writes_it()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        LiveSite site = code.Emit(0x1234, EchoCode.Allowed, start: 8)[0];
        byte[] original = site.ToArray();
        var pieces = new List<AssemblyPiece>();
        var found = new List<byte[]>();
        VirtualAddress Follow(params byte[] opcode)
        {
            byte[] bytes = site.ToArray();
            Assert.Equal(opcode, bytes[..2]);
            found.Add(bytes);
            VirtualAddress to = site.End + BitConverter.ToInt32(bytes.AsSpan(2));
            found.Add(code.Arena.Memory.Span(to, 32).ToArray());
            return to;
        }

        patcher.Bind(site.Block);
        VirtualAddress there = Follow(0x2e, 0xe8);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; call 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; jmp 0x{code.Echo.Value:x}"));
        Assert.Equal((LiveForm.Call, PatchAction.Call, (VirtualAddress?)code.Echo), (site.Form, site.Action, site.Target));

        patcher.Switch(code.OneInstruction);
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; mov %rdi,%rax; jmp 0x{site.End.Value:x}"));
        Assert.Equal(LiveForm.Island, site.Form);

        patcher.Switch(code.Several);
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $0x1234,%edi; lea 1(%rdi),%rax; lea -1(%rax),%rax; jmp 0x{site.End.Value:x}"));

        patcher.Switch(code.Constant); // does not read it: one instruction in the site
        found.Add(site.ToArray());
        pieces.Add(new AssemblyPiece(site.Address.Value, "cs; mov $7,%eax"));
        Assert.Equal(LiveForm.OneInstruction, site.Form);

        patcher.Switch(code.Constants); // nor do these
        there = Follow(0x2e, 0xe9);
        pieces.Add(new AssemblyPiece(site.Address.Value, $"cs; jmp 0x{there.Value:x}"));
        pieces.Add(new AssemblyPiece(there.Value, $"mov $3,%eax; lea 4(%rax),%eax; jmp 0x{site.End.Value:x}"));

        patcher.Switch(code.Nops);
        found.Add(site.ToArray());
        pieces.Add(new AssemblyPiece(site.Address.Value, "{disp8} nopw 0(%rax,%rax,1)"));
        Assert.Equal((LiveForm.OneInstruction, PatchAction.Nop), (site.Form, site.Action));

        IReadOnlyList<byte[]> expected = GnuAssembler.Assemble(64, pieces);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(found[i], 0, expected[i].Length));
        }

        patcher.Revert();
        Assert.Equal(original, site.ToArray());
    }

    [Fact]
    public void A_forwarding_island_goes_through_the_stub_too()
    {
        GnuAssembler.RequireTools();
        using var code = new EchoCode();
        LiveSite site = code.Emit(0x1234, EchoCode.Allowed, start: 60, forwarding: true)[0];
        Assert.True(site.HasForwarding);
        VirtualAddress stub = site.End + BitConverter.ToInt32(site.ToArray().AsSpan(2));
        VirtualAddress island = site.Address + 2 + site.Record.Forward;
        byte[] expected = GnuAssembler.Assemble(
            64, [new AssemblyPiece(island.Value, $"cs; call 0x{stub.Value:x}; {{disp32}} jmp 0x{site.End.Value:x}")])[0];
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(code.Arena.Memory.Span(island, 11)));
        Assert.True(code.Arena.TryFindCaller(island + 6, out LiveSite caller));
        Assert.Equal(site, caller);
    }
}
