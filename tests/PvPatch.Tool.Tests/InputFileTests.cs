using System.IO.Pipes;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>Files without an end: each option that names a file says so, after it has read little or nothing.</summary>
public sealed class InputFileTests : IDisposable
{
    private const string Endless = "/dev/zero";
    private const long Most = 32 << 20; // bytes, on top of which an option's own limit is far

    private readonly KernelFiles _files = new();

    public static TheoryData<string, string> Options => new()
    {
        { "revert VMLINUX --plan FILE -o OUT", "PV7005" },
        { "revert FILE --plan PLAN -o OUT", "PV6001" },
        { "revert VMLINUX --original FILE -o OUT", "PV6001" },
        { "diff FILE FILE", "PV7005" },
        { "diff FILE --backend native --against kvm", "PV6001" },
        { "plan VMLINUX --backend native --system-map FILE", "PV7007" },
        { "plan VMLINUX --backend native --kallsyms FILE", "PV7007" },
        { "plan VMLINUX --backend native --slots FILE", "PV7007" },
        { "plan VMLINUX --backend native --layout FILE", "PV6161" },
        { "plan VMLINUX --backend native --module FILE --at 0xffffffffa0000000", "PV6140" },
        { "info FILE", "PV6001" },
        { "verify VMLINUX --memory FILE", "PV6121" },
        { "verify VMLINUX --memory FILE --base 0xffffffff81000000", "PV6124" },
    };

    public void Dispose() => _files.Dispose();

    [Theory]
    [MemberData(nameof(Options))]
    public void A_file_without_an_end_is_not_read_to_it(string command, string code)
    {
        Assert.SkipUnless(File.Exists(Endless), $"there is no {Endless}");
        string plan = _files.Write("plan.json", ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json").Out);
        string[] arguments = [.. command.Split(' ').Select(word => word switch
        {
            "VMLINUX" => _files.Vmlinux,
            "FILE" => Endless,
            "PLAN" => plan,
            "OUT" => _files.Path("out"),
            _ => word,
        })];
        long before = GC.GetAllocatedBytesForCurrentThread();
        ToolRunner.Run(arguments).Fails(2, code);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, Most);
        Assert.False(File.Exists(_files.Path("out")));
    }

    [Fact]
    public void A_pipe_is_read_to_its_end()
    {
        Assert.SkipUnless(Directory.Exists("/dev/fd"), "there is no /dev/fd to name a pipe by");
        var pipe = new AnonymousPipeServerStream(PipeDirection.Out);
        using var client = new AnonymousPipeClientStream(PipeDirection.In, pipe.GetClientHandleAsString());
        using (pipe)
        {
            pipe.Write("{ \"irq.halt\": \"nop\" }"u8);
        }

        string text = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--slots",
            $"/dev/fd/{client.SafePipeHandle.DangerousGetHandle()}").Succeeds().Out;
        Assert.Matches("irq.halt +nops", text);
    }

    [Fact]
    public async Task A_pipe_without_an_end_is_read_to_the_limit_only()
    {
        Assert.SkipUnless(Directory.Exists("/dev/fd"), "there is no /dev/fd to name a pipe by");
        using var pipe = new AnonymousPipeServerStream(PipeDirection.Out);
        using var client = new AnonymousPipeClientStream(PipeDirection.In, pipe.GetClientHandleAsString());
        using var stop = new CancellationTokenSource();
        Task writer = Task.Run(
            () =>
            {
                byte[] blanks = new byte[1 << 16];
                try
                {
                    while (!stop.IsCancellationRequested)
                    {
                        pipe.Write(blanks);
                    }
                }
                catch (IOException)
                {
                    // Nobody reads any more.
                }
            },
            TestContext.Current.CancellationToken);
        ToolResult result = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--slots",
            $"/dev/fd/{client.SafePipeHandle.DangerousGetHandle()}").Fails(2, "PV7007");
        Assert.Contains("more than 1048576 bytes", result.Error, StringComparison.Ordinal);
        await stop.CancelAsync();
        client.Dispose();
        await writer;
    }
}
