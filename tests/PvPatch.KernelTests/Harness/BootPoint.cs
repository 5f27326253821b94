namespace PvPatch.KernelTests.Harness;

/// <summary>A moment of the boot at which the machine can be stopped.</summary>
public enum BootPoint
{
    /// <summary>All boot-time patching of the kernel's text is done and the init sections are still there.</summary>
    AfterPatching,

    /// <summary>User space runs; the init sections are freed and overwritten.</summary>
    Ready,
}
