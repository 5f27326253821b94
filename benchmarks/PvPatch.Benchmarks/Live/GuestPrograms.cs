using System.Diagnostics;

namespace PvPatch.Benchmarks.Live;

/// <summary>The guest programs of the sample's folder guest/speed, compiled when the benchmark starts, and one that does nothing.</summary>
internal sealed class GuestPrograms : IDisposable
{
    private const string Compiler = "riscv64-unknown-elf-gcc";

    private static readonly string s_sources = Path.Combine(AppContext.BaseDirectory, "guest");

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-guest-");

    /// <summary>Compiles them all.</summary>
    /// <exception cref="System.ComponentModel.Win32Exception">The compiler is not on PATH.</exception>
    public GuestPrograms()
    {
        string empty = Path.Combine(_directory.FullName, "nothing.c");
        File.WriteAllText(empty, "int main(void) { return 0; }\n");
        Empty = Compile(empty);
        All = [.. Directory.GetFiles(Path.Combine(s_sources, "speed"), "*.c").Order(StringComparer.Ordinal).Select(Compile)];
    }

    public static string Missing => $"{Compiler} (Debian: gcc-riscv64-unknown-elf) was not found on PATH: name ELF files, or install it.";

    /// <summary>Paths of the ELF files.</summary>
    public IReadOnlyList<string> All { get; }

    /// <summary>A program that only exits: what starting costs.</summary>
    public string Empty { get; }

    public void Dispose() => _directory.Delete(recursive: true);

    private string Compile(string source)
    {
        string output = Path.Combine(_directory.FullName, Path.GetFileNameWithoutExtension(source));
        using Process process = Process.Start(Compiler, [
            "-O2", "-march=rv64im", "-mabi=lp64", "-mcmodel=medany", "-ffreestanding", "-nostdlib", "-static", "-Wl,--no-warn-rwx-segments",
            "-o", output, Path.Combine(s_sources, "start.S"), Path.Combine(s_sources, "memory.c"), source]);
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{source} does not compile");
    }
}
