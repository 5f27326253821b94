using System.Diagnostics;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Runs the programs that make test input: assembler, linker, compiler, compressors.</summary>
internal static class Tools
{
    /// <summary>Feeds bytes to a program and takes what it writes.</summary>
    public static byte[] Pipe(byte[] input, string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(Require.Tool(program), arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> complaints = process.StandardError.ReadToEndAsync();
        Task feeding = Task.Run(() =>
        {
            process.StandardInput.BaseStream.Write(input);
            process.StandardInput.Close();
        });
        using var output = new MemoryStream();
        process.StandardOutput.BaseStream.CopyTo(output);
        process.WaitForExit();
        feeding.Wait();
        Assert.True(process.ExitCode == 0, $"{program} failed: {complaints.Result}");
        return output.ToArray();
    }

    /// <summary>Assembles AT&amp;T source to a relocatable file.</summary>
    public static byte[] Assemble(string source, int bitness)
    {
        using var folder = new TestFolder();
        string result = folder.File("out.o");
        Pipe(System.Text.Encoding.ASCII.GetBytes(source), "as", $"--{bitness}", "-o", result, "-");
        return File.ReadAllBytes(result);
    }

    /// <summary>Assembles source that may include files of a folder.</summary>
    public static byte[] Assemble(string source, int bitness, string includes)
    {
        using var folder = new TestFolder();
        string result = folder.File("out.o");
        Pipe(System.Text.Encoding.ASCII.GetBytes(source), "as", $"--{bitness}", "--fatal-warnings", "-I", includes, "-o", result, "-");
        return File.ReadAllBytes(result);
    }

    /// <summary>Assembles AT&amp;T source and links it to an executable with its sections at the addresses given.</summary>
    public static byte[] AssembleAndLink(string source, int bitness, params (string Section, ulong Address)[] places) =>
        Link(Assemble(source, bitness), bitness, [], places);

    /// <summary>Links a relocatable file to an executable: the symbols it needs and its sections at the addresses given.</summary>
    public static byte[] Link(
        byte[] relocatable, int bitness, IEnumerable<(string Name, ulong Address)> symbols, params (string Section, ulong Address)[] places)
    {
        using var folder = new TestFolder();
        string objectFile = folder.File("in.o");
        string result = folder.File("out");
        File.WriteAllBytes(objectFile, relocatable);
        string[] starts = [.. places.Select(p => $"--section-start={p.Section}=0x{p.Address:x}"),
            .. symbols.Select(s => $"--defsym={s.Name}=0x{s.Address:x}")];
        Pipe([], "ld",
            ["-m", bitness == 64 ? "elf_x86_64" : "elf_i386", "-e", "0", "--no-warn-rwx-segments", .. starts, "-o", result, objectFile]);
        return File.ReadAllBytes(result);
    }
}
