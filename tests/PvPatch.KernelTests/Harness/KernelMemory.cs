namespace PvPatch.KernelTests.Harness;

/// <summary>A range of the kernel image as it stood in guest memory at one moment, kept in a file.</summary>
public sealed class KernelMemory
{
    internal KernelMemory(string path, ulong start)
    {
        FilePath = path;
        Start = start;
        End = start + (ulong)new FileInfo(path).Length;
    }

    /// <summary>The bytes as they are, from <see cref="Start"/> on; deleted with the fixture.</summary>
    public string FilePath { get; }

    /// <summary>First address: a link address of the kernel, unless it was booted with KASLR.</summary>
    public ulong Start { get; }

    /// <summary>First address behind.</summary>
    public ulong End { get; }

    /// <summary>Reads bytes by their address.</summary>
    public byte[] ReadKernel(ulong startVa, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        if (startVa < Start || startVa > End || (ulong)length > End - startVa)
        {
            throw new ArgumentOutOfRangeException(
                nameof(startVa), $"{startVa:x}+{length:x} is not within the saved range {Start:x}..{End:x}.");
        }

        byte[] bytes = new byte[length];
        using FileStream file = File.OpenRead(FilePath);
        file.Position = (long)(startVa - Start);
        file.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>Address of the first place that holds these bytes; null if none does.</summary>
    public ulong? Find(ReadOnlySpan<byte> needle)
    {
        int index = File.ReadAllBytes(FilePath).AsSpan().IndexOf(needle);
        return index < 0 ? null : Start + (ulong)index;
    }
}
