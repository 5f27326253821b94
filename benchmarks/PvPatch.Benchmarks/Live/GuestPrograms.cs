using System.Diagnostics;

namespace PvPatch.Benchmarks.Live;

/// <summary>The guest programs of the sample's folder guest/speed, compiled when the benchmark starts, and one that does nothing.</summary>
internal sealed class GuestPrograms : IDisposable
{
    private const string Compiler = "riscv64-unknown-elf-gcc";

    private static readonly string s_sources = Path.Combine(AppContext.BaseDirectory, "guest");

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-guest-");

    /// <summary>What there is to say where the compiler is missing.</summary>
    public static string Missing => $"{Compiler} (Debian: gcc-riscv64-unknown-elf) was not found on PATH: name ELF files, or install it.";

    /// <summary>Paths of the ELF files.</summary>
    public IReadOnlyList<string> All { get; private set; } = [];

    /// <summary>A program that only exits: what starting costs.</summary>
    public string Empty { get; private set; } = "";

    /// <summary>Compiles them all; <see langword="null"/> where the compiler is not on PATH.</summary>
    public static GuestPrograms? Compile()
    {
        var programs = new GuestPrograms();
        try
        {
            string empty = Path.Combine(programs._directory.FullName, "nothing.c");
            File.WriteAllText(empty, "int main(void) { return 0; }\n");
            programs.Empty = programs.Compile(empty);
            string[] sources = Directory.GetFiles(Path.Combine(s_sources, "speed"), "*.c");
            programs.All = [.. sources.Order(StringComparer.Ordinal).Select(programs.Compile)];
            return programs;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            programs.Dispose();
            return null;
        }
        catch
        {
            programs.Dispose();
            throw;
        }
    }

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
