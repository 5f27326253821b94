using PvPatch.Linux.Tests.Kernel;

namespace PvPatch.Tool.Tests.Support;

/// <summary>A small kernel that can run on KVM, with its System.map, and memory dumps of it.</summary>
internal sealed class GuestFiles : IDisposable
{
    /// <summary>kvm_io_delay and the like, in the free part of the code.</summary>
    public const ulong KvmIoDelay = SyntheticKernel.Text + 0x710;

    public const ulong KvmIsPreempted = SyntheticKernel.Text + 0x720;

    private static readonly (ulong Address, string Name)[] s_symbols =
    [
        (SyntheticKernel.Text, "_text"),
        (SyntheticKernel.EmptyFunction, "_paravirt_nop"),
        (SyntheticKernel.Text + 0x700, "kvm_guest_init"),
        (KvmIoDelay, "kvm_io_delay"),
        (KvmIsPreempted, "__raw_callee_save___kvm_vcpu_is_preempted"),
    ];

    private readonly KernelFiles _files = new();

    public GuestFiles(int seed = 1)
    {
        Kernel = SyntheticKernel.Complete();

        // Code by which the kernel is known in memory: no two bytes of it are part of an address.
        var random = new Random(seed);
        byte[] code = new byte[0xc00];
        for (int i = 0; i < code.Length; i++)
        {
            code[i] = (byte)random.Next(0x21, 0x7f);
        }

        Kernel.Put(SyntheticKernel.Text + 0x1400, code);
        Vmlinux = Write("guest", Kernel.Build());
        SystemMap = Write("System.map", Listing(0));
    }

    public SyntheticKernel Kernel { get; }

    public string Vmlinux { get; }

    /// <summary>Names for the functions of a KVM guest.</summary>
    public string SystemMap { get; }

    /// <summary>The options that every command on the guest takes.</summary>
    public string[] Map => ["--system-map", SystemMap];

    public string Path(string name) => _files.Path(name);

    public string Write(string name, byte[] content) => _files.Write(name, content);

    public string Write(string name, string content) => _files.Write(name, content);

    public static string Listing(ulong slide) => string.Concat(s_symbols.Select(s => $"{s.Address + slide:x16} T {s.Name}\n"));

    /// <summary>The first site of a slot.</summary>
    public ulong SiteOf(string slot) => Kernel.Records.First(r => r.Type == SyntheticOps.IndexOf(slot)).Address.Value;

    /// <summary>A machine that booted on a backend; none for one that has not patched itself yet.</summary>
    public DumpedMachine Boot(string? backend, ulong slide = 0)
    {
        if (backend is null)
        {
            return new DumpedMachine(File.ReadAllBytes(Vmlinux), slide);
        }

        string output = Path("booted");
        ToolRunner.Run(["patch", Vmlinux, .. Map, "--backend", backend, "-o", output]).Succeeds();
        return new DumpedMachine(File.ReadAllBytes(output), slide);
    }

    public string Core(DumpedMachine machine) => Write("core", machine.Core());

    public void Dispose() => _files.Dispose();
}
