namespace PvPatch.Linux.Tests.Eras;

/// <summary>The function by which kernels decided on a direct call, as far as the era is told by it.</summary>
internal static class EraPatchers
{
    /// <summary>"Does the target destroy what the site does not allow": a complement and a test.</summary>
    public const string WithClobberTest =
        "paravirt_patch_call: mov %ecx, %eax; not %eax; test %eax, %edx; jne 1f; cmp $4, %ebp; jbe 1f; movb $0xe8, (%edi); 1: ret";

    /// <summary>Only the length counts. The complement in the next function is not its own.</summary>
    public const string WithoutClobberTest = "paravirt_patch_call: cmp $4, %ebp; jbe 1f; movb $0xe8, (%edi); 1: ret\nother: not %eax; ret";
}
