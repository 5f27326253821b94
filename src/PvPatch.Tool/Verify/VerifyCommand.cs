using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Verify;

namespace PvPatch.Tool.Verify;

/// <summary><c>pvpatch verify</c>: compares a memory dump with the kernel's bytes on each backend.</summary>
internal sealed class VerifyCommand : ToolCommand
{
    private const string Auto = "auto";

    private readonly Argument<string> _image = KernelInput.Argument("The kernel the machine ran: vmlinux or vmlinuz, as built");

    private readonly Option<string> _memory = new("--memory",
        "-m")
    {
        Description = "The dump: an ELF core (QEMU's dump-guest-memory, /proc/kcore, makedumpfile -E), a compressed kernel dump "
            + "(makedumpfile, dump-guest-memory -z), a LiME dump, or raw memory with --base",
        HelpName = "FILE",
        Required = true
    };

    private readonly Option<string?> _base = new("--base")
    {
        Description = "Raw memory: the address of its first byte, virtual or physical. KASLR is found out",
        HelpName = "ADDRESS"
    };

    private readonly Option<string> _backend = new("--backend", "-b")
    {
        Description = "What the machine should have run on; auto finds out",
        HelpName = "NAME",
        DefaultValueFactory = static _ => Auto
    };

    private readonly MachineOptions _machine;

    private readonly ImageOptions _imageOptions;

    public VerifyCommand()
        : base(
            "verify",
            "Compare a memory dump with the kernel: on which backend the machine ran, and which sites hold bytes that no backend "
                + "accounts for.",
            "verify vmlinuz --memory guest.core",
            "verify vmlinux --memory text.bin --base 0xffffffff81000000 --backend kvm --json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_memory);
        Definition.Options.Add(_base);
        Definition.Options.Add(_backend);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
        _base.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && !VirtualAddress.TryParse(result.Tokens[0].Value, out _))
            {
                result.AddError($"--base takes an address in hexadecimal, as 0xffffffff81000000, not \"{result.Tokens[0].Value}\"");
            }
        });
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        MachineSettings settings = _machine.Read(arguments);
        using MemoryFile file = OpenMemory(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        string wanted = arguments.GetValue(_backend)!;
        string? named = wanted == Auto ? null : wanted;
        MemoryVerification result = Candidates.Verify(image, file, settings, named, path, run.Console.Cancellation);
        var report = new MemoryReport(image, result, named, path);
        if (report.ExitCode == ExitCode.BadInput)
        {
            throw new ToolFailure(report.Diagnostics);
        }

        if (run.IsJson)
        {
            run.WriteJson(report.WriteJson);
        }
        else
        {
            report.WriteText(run.Out);
        }

        run.Warn(report.Diagnostics);
        return report.ExitCode;
    }

    private MemoryFile OpenMemory(ParseResult arguments)
    {
        string path = arguments.GetRequiredValue(_memory);
        if (path.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of the memory file is empty"));
        }

        VirtualAddress? start = arguments.GetValue(_base) is string text && VirtualAddress.TryParse(text, out VirtualAddress address)
            ? address : null;
        return MemoryFile.TryOpen(path, start, out MemoryFile? file, out PatchDiagnostic? error) ? file : throw new ToolFailure(error);
    }
}
