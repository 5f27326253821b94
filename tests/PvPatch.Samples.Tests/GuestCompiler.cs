using System.Diagnostics;
using PvPatch.Tests.Support;

namespace PvPatch.Samples.Tests;

/// <summary>Debian's bare-metal RISC-V compiler and assembler.</summary>
internal static class GuestCompiler
{
    private const string Compiler = "riscv64-unknown-elf-gcc";
    private const string ObjectCopy = "riscv64-unknown-elf-objcopy";

    /// <summary>Skips the test where they are not installed, or fails it where they are asked for.</summary>
    public static void Need()
    {
        Require.Tool(Require.IsOnPath(Compiler), Compiler, "gcc-riscv64-unknown-elf");
        Require.Tool(Require.IsOnPath(ObjectCopy), ObjectCopy, "binutils-riscv64-unknown-elf");
    }

    /// <summary>Builds one of the sample's guest programs. The ELF file.</summary>
    public static byte[] Build(string name, string optimization, params string[] more)
    {
        using var directory = new TemporaryDirectory();
        string sources = Path.Combine(AppContext.BaseDirectory, "guest");
        string output = directory.File("program");
        Run(Compiler, [
            optimization, "-march=rv64im", "-mabi=lp64", "-mcmodel=medany", "-ffreestanding", "-nostdlib", "-static", "-Wall", "-Wextra",
            "-Werror", "-Wl,--no-warn-rwx-segments", "-o", output, Path.Combine(sources, "start.S"), Path.Combine(sources, "memory.c"),
            Path.Combine(sources, name + ".c"), .. more]);
        return File.ReadAllBytes(output);
    }

    /// <summary>Assembles text. The words.</summary>
    public static uint[] Assemble(IEnumerable<string> lines)
    {
        using var directory = new TemporaryDirectory();
        string source = directory.File("code.s");
        File.WriteAllLines(source, lines);
        Run(Compiler, ["-c", "-march=rv64im", "-mabi=lp64", "-o", directory.File("code.o"), source]);
        Run(ObjectCopy, ["-O", "binary", "-j", ".text", directory.File("code.o"), directory.File("code.bin")]);
        byte[] bytes = File.ReadAllBytes(directory.File("code.bin"));
        return [.. Enumerable.Range(0, bytes.Length / 4).Select(i => BitConverter.ToUInt32(bytes, i * 4))];
    }

    private static void Run(string tool, string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(tool, arguments) { RedirectStandardError = true })!;
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{tool}: {errors}");
    }

    private sealed class TemporaryDirectory : IDisposable
    {
        private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-riscv-");

        public string File(string name) => Path.Combine(_directory.FullName, name);

        public void Dispose() => _directory.Delete(recursive: true);
    }
}
