using System.IO.Compression;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace PvPatch.KernelTests.Harness;

/// <summary>The Xen hypervisor as Debian ships it, in the cache.</summary>
/// <param name="ImagePath">Path of the unpacked hypervisor, a 32-bit multiboot ELF.</param>
/// <param name="Package">The real package, for example xen-hypervisor-4.17-amd64.</param>
/// <param name="Version">Package version.</param>
internal sealed partial record XenHypervisor(string ImagePath, string Package, string Version)
{
    private const string ImageName = "xen";
    private const string InfoName = "xen.json";

    /// <summary>The hypervisor out of the cache, or fetched into it.</summary>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static XenHypervisor Fetch(PackageRequest request)
    {
        string entry = KernelCache.Entry("hypervisors", request.CacheName, directory => Fill(request, directory));
        XenHypervisor stored = JsonSerializer.Deserialize<XenHypervisor>(File.ReadAllBytes(Path.Combine(entry, InfoName)))
            ?? throw new InvalidDataException($"{entry}/{InfoName} is empty.");
        return stored with { ImagePath = Path.Combine(entry, ImageName) };
    }

    private static void Fill(PackageRequest request, string directory)
    {
        string packed = Path.Combine(directory, $"{ImageName}.gz");
        (string package, string version) = DebianArchive.Fetch(request, Resolve, static path => Image().IsMatch(path), packed);
        using (GZipStream stream = new(File.OpenRead(packed), CompressionMode.Decompress))
        using (FileStream image = File.Create(Path.Combine(directory, ImageName)))
        {
            stream.CopyTo(image);
        }

        File.Delete(packed);
        XenHypervisor xen = new(ImageName, package, version);
        File.WriteAllBytes(Path.Combine(directory, InfoName), JsonSerializer.SerializeToUtf8Bytes(xen));
    }

    /// <summary>Follows xen-system-amd64 to the hypervisor of the suite, whose name has the version.</summary>
    private static ResolvedPackage Resolve(AptRoot apt, string package)
    {
        if (!Hypervisor().IsMatch(package))
        {
            Match real = Hypervisor().Match(apt.Show(package).GetValueOrDefault("Depends", string.Empty));
            package = real.Success
                ? real.Value
                : throw new InvalidOperationException($"{package} depends on no package of a Xen hypervisor.");
        }

        return new ResolvedPackage(package, apt.Show(package)["Version"], package);
    }

    [GeneratedRegex(@"\bxen-hypervisor-\d[\d.]*-amd64\b")]
    private static partial Regex Hypervisor();

    [GeneratedRegex(@"^(\./)?boot/xen-\d[\d.]*-amd64\.gz$")]
    private static partial Regex Image();
}
