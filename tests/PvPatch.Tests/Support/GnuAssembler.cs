using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;

namespace PvPatch.Tests.Support;

/// <summary>One piece of AT&amp;T assembly (statements separated by <c>;</c>) and the address at which it runs.</summary>
internal readonly record struct AssemblyPiece(ulong Address, string Text, string File = "piece", int Line = 1);

/// <summary>GNU as and ld as a second encoder: many pieces in one run, each at its own address.</summary>
internal static class GnuAssembler
{
    public static void RequireTools()
    {
        Require.Tool(OperatingSystem.IsLinux() && Require.IsOnPath("as") && Require.IsOnPath("ld"), "GNU as and ld", "binutils");
    }

    /// <summary>The bytes of every piece, in order.</summary>
    /// <exception cref="InvalidOperationException">as or ld refused; its message names file and line of the piece.</exception>
    public static IReadOnlyList<byte[]> Assemble(int bitness, IReadOnlyList<AssemblyPiece> pieces)
    {
        string folder = Directory.CreateTempSubdirectory("pvpatch-as-").FullName;
        try
        {
            string source = Path.Combine(folder, "in.s");
            string script = Path.Combine(folder, "in.ld");
            string unlinked = Path.Combine(folder, "in.o");
            string linked = Path.Combine(folder, "in.elf");
            WriteSourceAndScript(pieces, source, script);

            // -mindex-reg makes %eiz a name, the index register that is none; NOPs of 32-bit code are written with it.
            Run("as", bitness == 64 ? "--64" : "--32", "-mindex-reg", "-o", unlinked, source);

            // Pieces may stand at the same address, so ld must not check for overlap; -n keeps it from aligning them to pages.
            Run("ld", "-m", bitness == 64 ? "elf_x86_64" : "elf_i386", "-e", "0", "-n", "--no-check-sections", "-T", script, "-o", linked,
                unlinked);
            return ReadPieces(File.ReadAllBytes(linked), pieces.Count, bitness);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static void WriteSourceAndScript(IReadOnlyList<AssemblyPiece> pieces, string source, string script)
    {
        var text = new System.Text.StringBuilder();
        var layout = new System.Text.StringBuilder("PHDRS { none PT_NULL; }\nSECTIONS {\n");
        for (int i = 0; i < pieces.Count; i++)
        {
            AssemblyPiece piece = pieces[i];
            text.Append($".section .piece{i},\"ax\",@progbits\n");
            foreach (string statement in piece.Text.Split(';', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
            {
                // One statement a line (.rept needs that), each with the line of the table it came from.
                text.Append($"# {piece.Line} \"{piece.File}\"\n{statement}\n");
            }

            layout.Append($".piece{i} 0x{piece.Address:x} : {{ *(.piece{i}) }} :NONE\n");
        }

        layout.Append("/DISCARD/ : { *(*) }\n}\n");
        File.WriteAllText(source, text.ToString());
        File.WriteAllText(script, layout.ToString());
    }

    private static void Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true };
        using Process process = Process.Start(start) ?? throw new InvalidOperationException($"{program} did not start");
        string messages = process.StandardError.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{program} refused:\n{messages}");
        }
    }

    private static byte[][] ReadPieces(ReadOnlySpan<byte> elf, int count, int bitness)
    {
        bool is64 = bitness == 64;
        int headers = is64
            ? (int)BinaryPrimitives.ReadUInt64LittleEndian(elf[0x28..]) : (int)BinaryPrimitives.ReadUInt32LittleEndian(elf[0x20..]);
        ReadOnlySpan<byte> tail = elf[(is64 ? 0x3a : 0x2e)..];
        int size = BinaryPrimitives.ReadUInt16LittleEndian(tail);
        int sections = BinaryPrimitives.ReadUInt16LittleEndian(tail[2..]);
        int names = SectionBounds(elf, headers + (BinaryPrimitives.ReadUInt16LittleEndian(tail[4..]) * size), is64).Offset;

        byte[][] pieces = new byte[count][];
        Array.Fill(pieces, []);
        for (int i = 0; i < sections; i++)
        {
            int header = headers + (i * size);
            ReadOnlySpan<byte> name = elf[(names + (int)BinaryPrimitives.ReadUInt32LittleEndian(elf[header..]))..];
            string text = System.Text.Encoding.UTF8.GetString(name[..name.IndexOf((byte)0)]);
            if (text.StartsWith(".piece", StringComparison.Ordinal))
            {
                (int offset, int length) = SectionBounds(elf, header, is64);
                pieces[int.Parse(text.AsSpan(6), CultureInfo.InvariantCulture)] = elf.Slice(offset, length).ToArray();
            }
        }

        return pieces;
    }

    private static (int Offset, int Length) SectionBounds(ReadOnlySpan<byte> elf, int header, bool is64)
    {
        return is64
            ? ((int)BinaryPrimitives.ReadUInt64LittleEndian(elf[(header + 0x18)..]),
                (int)BinaryPrimitives.ReadUInt64LittleEndian(elf[(header + 0x20)..]))
            : ((int)BinaryPrimitives.ReadUInt32LittleEndian(elf[(header + 0x10)..]),
                (int)BinaryPrimitives.ReadUInt32LittleEndian(elf[(header + 0x14)..]));
    }
}
