namespace PvPatch.Tool.Info;

/// <summary>The sections that decide what can be done with a kernel.</summary>
internal static class KernelSections
{
    public static readonly string[] OfInterest =
        [".text", ".parainstructions", ".altinstructions", ".BTF", "__jump_table", ".static_call_sites", ".symtab"];
}
