using System.Runtime.Intrinsics.X86;

namespace PvPatch.Machine;

/// <summary>With which instructions vector state is saved.</summary>
internal enum VectorSaveForm
{
    /// <summary>It is not saved.</summary>
    None,

    /// <summary>fxsave: x87, MMX, SSE and MXCSR, all there is where the system does not let xsave be used.</summary>
    Fxsave,

    /// <summary>xsave: every component, whether in use or not.</summary>
    Xsave,

    /// <summary>xsavec: the components in use, side by side.</summary>
    Xsavec,
}

/// <summary>How a processor's vector state is saved to memory.</summary>
/// <param name="Form">The instructions.</param>
/// <param name="Mask">State components, as in XCR0; what the system has not enabled the processor leaves out by itself.</param>
/// <param name="Size">Bytes of the area, a multiple of 64.</param>
internal readonly record struct VectorSave(VectorSaveForm Form, uint Mask, int Size)
{
    /// <summary>Alignment of the area in bytes.</summary>
    public const int Alignment = 64;

    /// <summary>Offset of the header behind the legacy area, and so the size of what fxsave writes.</summary>
    public const int Header = 512;

    private const int HeaderEnd = 576;

    // x87, SSE, AVX; 5 to 7: AVX-512 (mask registers, upper halves of zmm0-15, zmm16-31); 17, 18: AMX; 19: APX, whose registers no
    // RegisterSet has and no convention keeps. Not PKRU (9): it is no register that code computes in, and a target may be there to set it.
    private const uint Wanted = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 17 | 1 << 18 | 1 << 19;

    /// <summary>A processor's answer to cpuid.</summary>
    /// <param name="leaf">The leaf.</param>
    /// <param name="subleaf">The subleaf.</param>
    public delegate (int Eax, int Ebx, int Ecx, int Edx) Cpuid(int leaf, int subleaf);

    /// <summary>What this processor and system have.</summary>
    public static VectorSave Current { get; } = X86Base.IsSupported ? Of(X86Base.CpuId) : default;

    /// <summary>What a processor has.</summary>
    public static VectorSave Of(Cpuid cpuid)
    {
        const int OsXsave = 1 << 27; // leaf 1, ecx: the system has set CR4.OSXSAVE
        const int Xsavec = 1 << 1; // leaf 0xd, subleaf 1, eax
        if (cpuid(0, 0).Eax < 0xd || (cpuid(1, 0).Ecx & OsXsave) == 0)
        {
            return new VectorSave(VectorSaveForm.Fxsave, 0, Header);
        }

        uint mask = (uint)cpuid(0xd, 0).Eax & Wanted;
        bool compact = (cpuid(0xd, 1).Eax & Xsavec) != 0;
        int end = HeaderEnd;
        for (int component = 2; component < 32; component++)
        {
            if ((mask >> component & 1) != 0)
            {
                (int size, int offset, int flags, _) = cpuid(0xd, component);
                bool aligned = (flags & 2) != 0; // in the compact form
                end = compact ? Round(end, aligned ? Alignment : 1) + size : Math.Max(end, offset + size);
            }
        }

        return new VectorSave(compact ? VectorSaveForm.Xsavec : VectorSaveForm.Xsave, mask, Round(end, Alignment));
    }

    private static int Round(int value, int alignment) => (value + alignment - 1) & -alignment;
}
