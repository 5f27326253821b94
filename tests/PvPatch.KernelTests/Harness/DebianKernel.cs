using System.Text.Json;
using System.Text.RegularExpressions;

namespace PvPatch.KernelTests.Harness;

/// <summary>A kernel as Debian ships it, in the cache.</summary>
/// <param name="ImagePath">Path of the vmlinuz (a bzImage).</param>
/// <param name="Package">The real package, for example linux-image-6.1.0-42-amd64.</param>
/// <param name="Version">Package version.</param>
/// <param name="Suite">Suite it came from.</param>
/// <param name="Architecture">Debian architecture.</param>
public sealed partial record DebianKernel(
    string ImagePath, string Package, string Version, string Suite, string Architecture)
{
    private const string ImageName = "vmlinuz";
    private const string InfoName = "kernel.json";

    /// <summary>The kernel out of the cache, or fetched into it.</summary>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static DebianKernel Fetch(PackageRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        string entry = KernelCache.Entry("kernels", request.CacheName, directory => Fill(request, directory));
        byte[] info = File.ReadAllBytes(Path.Combine(entry, InfoName));
        DebianKernel stored = JsonSerializer.Deserialize<DebianKernel>(info)
            ?? throw new InvalidDataException($"{entry}/{InfoName} is empty.");
        return stored with { ImagePath = Path.Combine(entry, ImageName) };
    }

    private static void Fill(PackageRequest request, string directory)
    {
        string target = Path.Combine(directory, ImageName);
        (string package, string version) = DebianArchive.Fetch(
            request, Resolve, path => Path.GetFileName(path).StartsWith(ImageName, StringComparison.Ordinal), target);
        DebianKernel kernel = new(ImageName, package, version, request.Suite, request.Architecture);
        File.WriteAllBytes(Path.Combine(directory, InfoName), JsonSerializer.SerializeToUtf8Bytes(kernel));
    }

    /// <summary>
    /// Follows a metapackage to the package of a numbered kernel. From 7.x on that one is empty too: the image
    /// is in the linux-binary package it depends on.
    /// </summary>
    private static ResolvedPackage Resolve(AptRoot apt, string package)
    {
        // linux-image-amd64 -> linux-image-6.1.0-42-amd64 is one step; flavours renamed in a suite take two.
        for (int step = 0; step < 3; step++)
        {
            Dictionary<string, string> stanza = apt.Show(package);
            string depends = stanza.GetValueOrDefault("Depends", string.Empty);
            Match next = NumberedImage().Match(depends);
            if (NumberedImage().IsMatch(package) || !next.Success)
            {
                Match binary = NumberedBinary().Match(depends);
                return new ResolvedPackage(package, stanza["Version"], binary.Success ? binary.Value : package);
            }

            package = next.Value;
        }

        throw new InvalidOperationException($"{package} leads to no numbered kernel package.");
    }

    [GeneratedRegex(@"\blinux-image-\d+\.\d[^\s,|(]*")]
    private static partial Regex NumberedImage();

    [GeneratedRegex(@"\blinux-binary-\d[^\s,|(]*")]
    private static partial Regex NumberedBinary();
}
