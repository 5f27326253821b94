using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks;

/// <summary>The loop of native/kernel_loop.c, compiled with the machine's own C compiler when the benchmark starts.</summary>
internal sealed unsafe class CLoop
{
    private static readonly Lazy<(nint Function, string Compiler, string Missing)> s_loop = new(Compile);

    private readonly Workload _work;
    private readonly SiteRecord[] _sites;
    private readonly OpRecord[] _ops;
    private readonly ulong[] _targets;

    private CLoop(Workload work)
    {
        _work = work;
        _sites = [.. work.Sites.Sites.ToArray().Select(static s => new SiteRecord(s))];
        _ops = [.. SyntheticOps.All.Select(static op => new OpRecord(op))];
        _targets = [.. Enumerable.Range(0, SyntheticOps.Count).Select(Workload.Target)];
    }

    /// <summary>The compiler and its flags, or why there is none.</summary>
    public static string Description => s_loop.Value.Function != 0 ? s_loop.Value.Compiler : s_loop.Value.Missing;

    public static bool IsThere => s_loop.Value.Function != 0;

    public static bool TryCreate(Workload work, [NotNullWhen(true)] out CLoop? loop)
    {
        loop = IsThere ? new CLoop(work) : null;
        return loop is not null;
    }

    public void Run()
    {
        fixed (byte* text = _work.Text)
        fixed (SiteRecord* sites = _sites)
        fixed (OpRecord* ops = _ops)
        fixed (ulong* targets = _targets)
        {
            var loop = (delegate* unmanaged<byte*, ulong, SiteRecord*, nuint, OpRecord*, ulong*, void>)s_loop.Value.Function;
            loop(text, Workload.Base.Value, sites, (nuint)_sites.Length, ops, targets);
        }
    }

    private static (nint Function, string Compiler, string Missing) Compile()
    {
        string source = Path.Combine(AppContext.BaseDirectory, "native", "kernel_loop.c");
        foreach (string compiler in (string[])["cc", "gcc", "clang"])
        {
            DirectoryInfo folder = Directory.CreateTempSubdirectory("pvpatch-bench-");
            string library = Path.Combine(folder.FullName, OperatingSystem.IsMacOS() ? "kernel_loop.dylib" : "kernel_loop.so");
            try
            {
                if (Run(compiler, "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, source) is not null
                    && NativeLibrary.TryLoad(library, out nint handle))
                {
                    string version = Run(compiler, "--version")?.Split('\n')[0] ?? compiler;
                    return (NativeLibrary.GetExport(handle, "kernel_loop"), $"{version}, -O2", "");
                }
            }
            finally
            {
                // A loaded library stays mapped; where the system keeps its file, the temporary folder stays too.
                TryDelete(folder);
            }
        }

        return (
            0, "", "No C compiler (cc, gcc, clang) was found on PATH: the C loop is left out, and ratios are to the reused Iced encoder.");
    }

    private static string? Run(string compiler, params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(compiler, arguments) { RedirectStandardOutput = true });
            string output = process!.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? output : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null; // not on PATH
        }
    }

    private static void TryDelete(DirectoryInfo folder)
    {
        try
        {
            folder.Delete(recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
        }
    }

    /// <summary>struct site.</summary>
    private readonly struct SiteRecord(PatchSite site)
    {
        public readonly ulong Address = site.Address.Value;
        public readonly ushort Slot = (ushort)site.Slot;
        public readonly byte Length = (byte)site.Budget;
        public readonly byte Unused;
        public readonly uint Clobbers = site.Clobbers.Bits;
    }

    /// <summary>struct op.</summary>
    private struct OpRecord
    {
        public uint Kind;
        public uint Destroys;
        public uint Length;
        public fixed byte Body[12];

        public OpRecord(SyntheticOp op)
        {
            Kind = op.Kind switch { OperationKind.Nop => 0, OperationKind.Inline => 1, _ => 2 };
            Destroys = op.Destroys.Bits;
            Length = (uint)op.Body.Length;
            for (int i = 0; i < op.Body.Length; i++)
            {
                Body[i] = op.Body[i];
            }
        }
    }
}
