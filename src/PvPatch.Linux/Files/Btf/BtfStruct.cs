namespace PvPatch.Linux.Files;

/// <summary>One member of a struct that was laid flat.</summary>
/// <param name="Path">
/// The names on the way to the member, joined by dots: <c>mmu.lazy_mode.enter</c>. Members without a name add nothing, elements of arrays
/// add <c>[0]</c>, and the one member of a callee-save wrapper adds nothing.
/// </param>
/// <param name="Offset">Its offset in bytes from the start of the struct.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="IsPointer">Whether it is a pointer.</param>
/// <param name="WrappingStruct">The name of the innermost struct it stands in that has a name, for example <c>pv_cpu_ops</c>.</param>
internal sealed record BtfMember(string Path, int Offset, int Size, bool IsPointer, string WrappingStruct)
{
    /// <summary>
    /// The struct in which the kernel keeps functions that preserve all registers but those of the result (since 2.6.30).
    /// </summary>
    public const string CalleeSaveStruct = "paravirt_callee_save";

    /// <summary>Whether the member is the function in a <see cref="CalleeSaveStruct"/>.</summary>
    public bool IsCalleeSave => WrappingStruct == CalleeSaveStruct;
}

/// <summary>A struct that was laid flat: every member of it and of the structs in it, in the order of the source.</summary>
/// <param name="Name">The name of the struct.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="Members">The members.</param>
internal sealed record BtfStruct(string Name, int Size, IReadOnlyList<BtfMember> Members);

/// <summary>Lays a struct of a kernel flat by its BTF data: how a table of operations is ordered, without symbols or source.</summary>
internal static class BtfStructLayout
{
    /// <summary>The struct that orders all paravirt operations (since 2.6.24).</summary>
    public const string PatchTemplate = "paravirt_patch_template";

    /// <summary>Looks for a struct and lays its members flat.</summary>
    /// <param name="btf">The whole data, as from the section <c>.BTF</c>.</param>
    /// <param name="structName">The name of the struct, for example <see cref="PatchTemplate"/>.</param>
    /// <param name="layout">The struct.</param>
    /// <param name="error">What is wrong: codes PV6050 to PV6057; its file offset counts from the start of the data.</param>
    /// <param name="bitness">32 or 64: BTF does not say how wide a pointer is.</param>
    /// <returns>Whether there is one such struct, and it could be laid flat.</returns>
    public static bool TryRead(
        ReadOnlyMemory<byte> btf,
        string structName,
        [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out BtfStruct? layout,
        [System.Diagnostics.CodeAnalysis.NotNullWhen(false)] out PatchDiagnostic? error,
        int bitness = 64)
    {
        layout = null;
        return BtfFile.TryRead(btf, out BtfFile? file, out error) && file.TryReadStruct(structName, bitness, out layout, out error);
    }
}
