namespace PvPatch.Linux.Dumps;

/// <summary>Numbers of pieces of a kernel's signature that memory holds and matches, for one assumed address of the kernel.</summary>
internal readonly record struct MemoryMatch
{
    public int DataRead { get; private init; }

    public int DataMatched { get; private init; }

    public int CodeRead { get; private init; }

    public int CodeMatched { get; private init; }

    /// <summary>Whether the banner stands there; <see langword="null"/> where it can't be read.</summary>
    public bool? Banner { get; private init; }

    public int Read => DataRead + CodeRead;

    public int Matched => DataMatched + CodeMatched;

    /// <summary>
    /// Three quarters of the data, where two pieces or more can be read; else a quarter of the code, and at least four pieces; and never
    /// against the banner.
    /// </summary>
    public bool IsKernel => Banner != false
        && (DataRead >= 2 ? DataMatched >= 2 && DataMatched * 4 >= DataRead * 3
            : DataMatched == DataRead && CodeMatched >= 4 && CodeMatched * 4 >= CodeRead);

    public static MemoryMatch Compare(KernelSignature signature, MemorySpace space, ulong displacement)
    {
        (int dataRead, int dataMatched) = Count(signature.Data, space, displacement);
        bool? banner = signature.Banner is { } piece ? Compare(piece, space, displacement) : null;

        // The rest would not change the answer.
        if (banner == false || (dataRead >= 2 && dataMatched == 0))
        {
            return new MemoryMatch { DataRead = dataRead, DataMatched = dataMatched, Banner = banner };
        }

        (int codeRead, int codeMatched) = Count(signature.Code, space, displacement);
        return new MemoryMatch
        {
            DataRead = dataRead,
            DataMatched = dataMatched,
            CodeRead = codeRead,
            CodeMatched = codeMatched,
            Banner = banner
        };
    }

    private static (int Read, int Matched) Count(List<SignaturePiece> pieces, MemorySpace space, ulong displacement)
    {
        int read = 0;
        int matched = 0;
        foreach (SignaturePiece piece in pieces)
        {
            bool? same = Compare(piece, space, displacement);
            read += same is null ? 0 : 1;
            matched += same == true ? 1 : 0;
        }

        return (read, matched);
    }

    private static bool? Compare(SignaturePiece piece, MemorySpace space, ulong displacement)
    {
        Span<byte> there = stackalloc byte[512];
        there = there[..piece.Bytes.Length];
        return space.TryRead(unchecked(piece.Address + displacement), there) ? there.SequenceEqual(piece.Bytes.Span) : null;
    }
}
