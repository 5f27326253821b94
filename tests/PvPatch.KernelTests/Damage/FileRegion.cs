namespace PvPatch.KernelTests.Damage;

/// <summary>A part of a file.</summary>
/// <param name="Start">Its offset in the file.</param>
/// <param name="Length">Its length in bytes.</param>
internal readonly record struct FileRegion(int Start, int Length);
