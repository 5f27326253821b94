namespace PvPatch.KernelTests.Harness;

/// <summary>What a requested package name stands for in its suite.</summary>
/// <param name="Package">The real package.</param>
/// <param name="Version">Its version.</param>
/// <param name="Downloads">The packages that hold the wanted files.</param>
internal readonly record struct ResolvedPackage(string Package, string Version, params string[] Downloads);
