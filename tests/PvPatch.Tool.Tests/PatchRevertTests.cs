using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text.Json;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>patch and revert on a small kernel.</summary>
public sealed class PatchRevertTests : IDisposable
{
    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Sites_become_what_the_kernel_makes_of_them_and_nothing_else_changes()
    {
        string patched = Patch();
        byte[] bytes = File.ReadAllBytes(patched);
        Assert.Equal(_files.Bytes.Length, bytes.Length);
        ElfImage elf = ElfImage.Read(bytes);
        foreach (PvPatch.Paravirt.ParaInstruction record in _files.Kernel.Records)
        {
            byte[] there = Take(elf, record.Address);
            string slot = SyntheticOps.Names[record.Type];
            if (there[0] == 0xe8)
            {
                // call rel32 of the slot's function, and one nop
                ulong target = record.Address.Value + 5 + (ulong)(long)BinaryPrimitives.ReadInt32LittleEndian(there.AsSpan(1));
                Assert.Equal(SyntheticKernel.FunctionOf(record.Type), target);
                Assert.Equal(0x90, there[5]);
            }
            else if (SyntheticOps.Empty.Contains(slot))
            {
                Assert.Equal("660F1F440000", Convert.ToHexString(there)); // the nop of 6 bytes
            }
            else
            {
                Assert.Contains(Convert.ToHexString(there), (string[])["FA0F1F440000", "FB0F1F440000", "C607000F1F00"]);
            }

            _files.Bytes.AsSpan((int)Offset(elf, record.Address), 6).CopyTo(bytes.AsSpan((int)Offset(elf, record.Address)));
        }

        Assert.Equal(_files.Bytes, bytes);
    }

    [Fact]
    public void Patch_says_what_it_wrote_and_how_to_take_it_back()
    {
        string output = _files.Path("out");
        ToolResult result = ToolRunner.Run(
            "patch", _files.Vmlinux, "--backend", "native", "-o", output, "--save-plan", _files.Path("plan.json")).Succeeds();
        Assert.Contains("27 of 27 places", result.Out, StringComparison.Ordinal);
        Assert.Contains($"pvpatch revert {output} --plan {_files.Path("plan.json")} -o FILE", result.Out, StringComparison.Ordinal);
        JsonElement json = ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", output, "--json").Succeeds().Json;
        Assert.Equal("pvpatch-patch", json.GetProperty("format").GetString());
        Assert.Equal(27, json.GetProperty("written").GetInt32());
        Assert.Equal(_files.Bytes.Length, json.GetProperty("size").GetInt32());
    }

    [Fact]
    public void A_vmlinuz_gives_the_same_file_as_its_vmlinux()
    {
        string output = _files.Path("from-vmlinuz");
        ToolRunner.Run("patch", _files.Vmlinuz(), "--backend", "native", "-o", output).Succeeds();
        Assert.Equal(File.ReadAllBytes(Patch()), File.ReadAllBytes(output));
    }

    [Fact]
    public void A_saved_plan_gives_the_original_back_bit_for_bit()
    {
        string patched = Patch("--save-plan", _files.Path("plan.json"));
        string output = _files.Path("back");
        ToolResult result = ToolRunner.Run("revert", patched, "--plan", _files.Path("plan.json"), "-o", output, "--json").Succeeds();
        Assert.Equal(_files.Bytes, File.ReadAllBytes(output));
        Assert.Equal("pvpatch-revert", result.Json.GetProperty("format").GetString());
        Assert.Equal(27, result.Json.GetProperty("written").GetInt32());
    }

    [Fact]
    public void The_output_of_plan_serves_revert_too()
    {
        string plan = _files.Write("plan.json", ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json").Succeeds().Out);
        string output = _files.Path("back");
        ToolRunner.Run("revert", Patch(), "--plan", plan, "-o", output).Succeeds();
        Assert.Equal(_files.Bytes, File.ReadAllBytes(output));
    }

    [Fact]
    public void The_original_gives_itself_back()
    {
        string output = _files.Path("back");
        ToolRunner.Run("revert", Patch(), "--original", _files.Vmlinuz(), "-o", output).Succeeds();
        Assert.Equal(_files.Bytes, File.ReadAllBytes(output));
    }

    [Fact]
    public void Reverting_what_is_not_patched_says_so()
    {
        string output = _files.Path("back");
        Assert.Contains("was not patched", ToolRunner.Run("revert", _files.Vmlinux, "--original", _files.Vmlinuz(), "-o", output).Succeeds()
            .Out, StringComparison.Ordinal);
        Assert.Equal(_files.Bytes, File.ReadAllBytes(output));
    }

    [Theory]
    [InlineData("--plan", "PV4002")]
    [InlineData("--original", "PV7006")]
    public void Unknown_bytes_at_a_site_stop_revert(string by, string code)
    {
        string patched = Patch("--save-plan", _files.Path("plan.json"));
        byte[] bytes = File.ReadAllBytes(patched);
        bytes[Offset(ElfImage.Read(bytes), _files.Kernel.Records[3].Address) + 1] ^= 0xff;
        string damaged = _files.Write("damaged", bytes);
        ToolResult result = ToolRunner.Run(
            "revert", damaged, by, by == "--plan" ? _files.Path("plan.json") : _files.Vmlinux, "-o", _files.Path("back")).Fails(3, code);
        Assert.Contains($"{_files.Kernel.Records[3].Address}", result.Error, StringComparison.Ordinal);
        Assert.False(File.Exists(_files.Path("back")));
    }

    [Fact]
    public void A_plan_of_another_kernel_is_refused()
    {
        var other = new SyntheticKernel();
        for (int i = 0; i < 40; i++)
        {
            other.AddSite("irq.halt");
        }

        string plan = _files.Write(
            "plan.json", ToolRunner.Run("plan", _files.Write("other", other.Build()), "--backend", "native", "--json").Succeeds().Out);
        ToolRunner.Run("revert", Patch(), "--plan", plan, "-o", _files.Path("back")).Fails(3, "PV4002");
        Assert.False(File.Exists(_files.Path("back")));
    }

    [Fact]
    public void Patching_twice_is_refused()
    {
        string patched = Patch();
        byte[] before = File.ReadAllBytes(patched);
        Assert.Contains("patched already", ToolRunner.Run("patch", patched, "--backend", "native", "-o", _files.Path("twice"))
            .Fails(2, "PV6104").Error, StringComparison.Ordinal);
        Assert.False(File.Exists(_files.Path("twice")));
        Assert.Equal(before, File.ReadAllBytes(patched));
    }

    [Theory]
    [InlineData("vmlinux")]
    [InlineData("./sub/../vmlinux")]
    [InlineData("link")]
    [InlineData("folder-link/vmlinux")]
    public void The_input_is_not_replaced_by_whatever_name(string name)
    {
        Directory.CreateDirectory(_files.Path("sub"));
        File.CreateSymbolicLink(_files.Path("link"), _files.Vmlinux);
        Directory.CreateSymbolicLink(_files.Path("folder-link"), Path.GetDirectoryName(_files.Vmlinux)!);
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path(name)).Fails(3, "PV7004");
        ToolRunner.Run("revert", _files.Vmlinux, "--original", _files.Vmlinux, "-o", _files.Path(name)).Fails(3, "PV7004");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("out"), "--save-plan", _files.Path(name))
            .Fails(3, "PV7004");
        Assert.Equal(_files.Bytes, File.ReadAllBytes(_files.Vmlinux));
        Assert.False(File.Exists(_files.Path("out")));
    }

    [Fact]
    public void The_input_is_replaced_where_that_is_asked_for()
    {
        string expected = Patch();
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Vmlinux, "--force").Succeeds();
        Assert.Equal(File.ReadAllBytes(expected), File.ReadAllBytes(_files.Vmlinux));
    }

    [Fact]
    public void Image_and_plan_cannot_be_one_file() =>
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("out"), "--save-plan", _files.Path("out"))
            .Fails(3, "PV7004");

    [Fact]
    public void An_output_that_cannot_be_written_leaves_nothing_behind()
    {
        Directory.CreateDirectory(_files.Path("folder"));
        IReadOnlyList<string> before = _files.Names();
        foreach (string output in (string[])["missing/out", "folder", "vmlinux/out"])
        {
            ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path(output), "--save-plan",
                _files.Path("plan.json")).Fails(4, "PV6107");
            ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("out"), "--save-plan", _files.Path(output))
                .Fails(4, "PV6107");
            ToolRunner.Run("revert", _files.Vmlinux, "--original", _files.Vmlinux, "-o", _files.Path(output)).Fails(4, "PV6107");
        }

        Assert.Equal(before, _files.Names());
        Assert.Empty(Directory.GetFileSystemEntries(_files.Path("folder")));
    }

    [Fact]
    public void A_socket_or_device_is_not_replaced()
    {
        if (!OperatingSystem.IsLinux())
        {
            return; // elsewhere there is nothing that could be replaced so
        }

        string path = _files.Path("socket");
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", path).Fails(4, "PV6107");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("out"), "--save-plan", path).Fails(4, "PV6107");
        Assert.Throws<IOException>(() => File.ReadAllBytes(path)); // still a socket
        Assert.False(File.Exists(_files.Path("out")));
    }

    [Fact]
    public void A_link_is_followed_to_the_file_it_means()
    {
        File.CreateSymbolicLink(_files.Path("link"), _files.Path("meant"));
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("link")).Succeeds();
        Assert.Equal(_files.Path("meant"), new FileInfo(_files.Path("link")).LinkTarget);
        Assert.True(File.Exists(_files.Path("meant")));
    }

    [Theory]
    [InlineData("", "PV5001")]
    [InlineData("not json", "PV5001")]
    [InlineData("[]", "PV5001")]
    [InlineData("{\"format\": \"pvpatch-info\", \"version\": 1}", "PV5001")]
    [InlineData("{\"format\": \"pvpatch-plan\", \"version\": 99}", "PV5001")]
    public void What_is_no_plan_is_an_error(string text, string code)
    {
        string plan = _files.Write("plan.json", text);
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", plan, "-o", _files.Path("back")).Fails(2, code);
        Assert.False(File.Exists(_files.Path("back")));
    }

    [Fact]
    public void A_plan_that_contradicts_itself_is_an_error()
    {
        string plan = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json")
            .Out.Replace("\"length\": 6", "\"length\": 7", StringComparison.Ordinal);
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", _files.Write("plan.json", plan), "-o", _files.Path("back")).Fails(2, "PV5002");
    }

    [Fact]
    public void A_plan_that_cannot_be_read_is_an_error()
    {
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", _files.Path("missing"), "-o", _files.Path("back")).Fails(2, "PV7005");
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", Path.GetDirectoryName(_files.Vmlinux)!, "-o", _files.Path("back"))
            .Fails(2, "PV7005");
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", "", "-o", _files.Path("back")).Fails(2, "PV7005");
    }

    [Fact]
    public void Revert_wants_one_source_and_not_two()
    {
        ToolRunner.Run("revert", _files.Vmlinux, "-o", _files.Path("back")).Fails(1, "PV7001");
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", "a", "--original", "b", "-o", _files.Path("back")).Fails(1, "PV7001");
    }

    private string Patch(params string[] more)
    {
        string output = _files.Path("patched");
        ToolRunner.Run(["patch", _files.Vmlinux, "--backend", "native", "-o", output, .. more]).Succeeds();
        return output;
    }

    private static byte[] Take(ElfImage elf, VirtualAddress address)
    {
        Assert.True(elf.ToCode().TryGetBytes(address, 6, out Span<byte> bytes));
        return bytes.ToArray();
    }

    private static long Offset(ElfImage elf, VirtualAddress address)
    {
        Assert.True(elf.TryGetFileOffset(address, 6, out long offset));
        return offset;
    }
}
