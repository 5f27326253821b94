namespace PvPatch.KernelTests.Harness;

/// <summary>What a requested package name stands for in its suite.</summary>
/// <param name="Package">The real package.</param>
/// <param name="Version">Its version.</param>
/// <param name="Download">The package that holds the wanted file.</param>
internal readonly record struct ResolvedPackage(string Package, string Version, string Download);
