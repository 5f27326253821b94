using PvPatch.Linux.Tests.Support;
using PvPatch.Tests.Support;

namespace PvPatch.Linux.Tests.Objects;

/// <summary>Sources that include <c>pvpatch.inc</c>, through GNU as, ld and gcc.</summary>
internal static class IncludeFile
{
    public static string Folder { get; } = Repository.Path("src", "PvPatch", "Records");

    public static byte[] Assemble(string source, int bitness) =>
        Tools.Assemble($".include \"pvpatch.inc\"\n.text\n{source}\n", bitness, Folder);

    /// <summary>What as says of a source it refuses.</summary>
    public static string Refusal(string source, int bitness)
    {
        var refused = Assert.ThrowsAny<Xunit.Sdk.XunitException>(() => Assemble(source, bitness));
        return refused.Message;
    }

    /// <summary>Links an object file as it would be linked for use: sections where ld puts them.</summary>
    public static byte[] Link(byte[] relocatable, int bitness, params string[] options)
    {
        using var folder = new TestFolder();
        string result = folder.File("out");
        Tools.Pipe(
            [], "ld", ["-m", bitness == 64 ? "elf_x86_64" : "elf_i386", .. options, "-o", result, folder.File("in.o", relocatable)]);
        return File.ReadAllBytes(result);
    }

    /// <summary>Compiles C whose inline assembly uses the macros.</summary>
    public static byte[] Compile(string source, int bitness)
    {
        using var folder = new TestFolder();
        string result = folder.File("out.o");
        Tools.Pipe(
            System.Text.Encoding.ASCII.GetBytes($"asm(\".include \\\"pvpatch.inc\\\"\");\n{source}\n"), "gcc",
            [$"-m{bitness}", "-O2", "-fno-pic", "-fcf-protection=none", "-mno-sse", "-mno-red-zone", $"-Wa,-I{Folder}", "-c", "-x", "c",
                "-o", result, "-"]);
        return File.ReadAllBytes(result);
    }
}
