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
    internal const string ImageName = "vmlinuz";
    private const string InfoName = "kernel.json";

    /// <summary>The kernel out of the cache, or fetched into it.</summary>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static DebianKernel Fetch(PackageRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        string entry = KernelCache.Entry("kernels", request.CacheName, directory => Fill(request, directory));
        return Read(entry);
    }

    /// <summary>The kernel in an entry of the cache.</summary>
    internal static DebianKernel Read(string entry)
    {
        byte[] info = File.ReadAllBytes(Path.Combine(entry, InfoName));
        DebianKernel stored = JsonSerializer.Deserialize<DebianKernel>(info)
            ?? throw new InvalidDataException($"{entry}/{InfoName} is empty.");
        return stored with { ImagePath = Path.Combine(entry, ImageName) };
    }

    private static void Fill(PackageRequest request, string directory)
    {
        string target = Path.Combine(directory, ImageName);
        (string package, string version) = DebianArchive.Fetch(
            request, static (apt, name) => Resolve(apt, name, modules: false), IsImage, target);
        Write(request, package, version, directory);
    }

    /// <summary>Whether a path in a package is that of the kernel.</summary>
    internal static bool IsImage(string path) => Path.GetFileName(path).StartsWith(ImageName, StringComparison.Ordinal);

    /// <summary>Leaves in an entry of the cache what <see cref="Read"/> needs besides the image.</summary>
    internal static void Write(PackageRequest request, string package, string version, string directory)
    {
        DebianKernel kernel = new(ImageName, package, version, request.Suite, request.Architecture);
        File.WriteAllBytes(Path.Combine(directory, InfoName), JsonSerializer.SerializeToUtf8Bytes(kernel));
    }

    /// <summary>
    /// Follows a metapackage to the package of a numbered kernel. From 7.x on that one is empty too: the image
    /// is in the linux-binary package it depends on, its modules are in the linux-modules package.
    /// </summary>
    internal static ResolvedPackage Resolve(AptRoot apt, string package, bool modules)
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
                string image = binary.Success ? binary.Value : package;
                Match apart = NumberedModules().Match(depends);
                return new ResolvedPackage(package, stanza["Version"], modules && apart.Success ? [image, apart.Value] : [image]);
            }

            package = next.Value;
        }

        throw new InvalidOperationException($"{package} leads to no numbered kernel package.");
    }

    [GeneratedRegex(@"\blinux-image-\d+\.\d[^\s,|(]*")]
    private static partial Regex NumberedImage();

    [GeneratedRegex(@"\blinux-modules-\d[^\s,|(]*")]
    private static partial Regex NumberedModules();

    [GeneratedRegex(@"\blinux-binary-\d[^\s,|(]*")]
    private static partial Regex NumberedBinary();
}
