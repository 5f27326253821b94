namespace PvPatch.KernelTests.Harness;

/// <summary>Takes one file out of one package of the Debian archive.</summary>
internal static class DebianArchive
{
    /// <summary>Resolves, downloads and extracts; the apt root of the suite is locked meanwhile.</summary>
    /// <returns>Name and version of the real package.</returns>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static (string Package, string Version) Fetch(
        PackageRequest request, Func<AptRoot, string, ResolvedPackage> resolve, Func<string, bool> fits, string target)
    {
        string name = $"{request.Suite}-{request.Architecture}";
        using FileLock held = KernelCache.Lock("apt", name);
        AptRoot apt = new(Path.Combine(KernelCache.Root, "apt", name), request.Suite, request.Architecture);
        string downloads = $"{target}.debs";
        Directory.CreateDirectory(downloads);
        try
        {
            apt.Update(refresh: false);
            ResolvedPackage resolved = resolve(apt, request.Package);
            if (!apt.TryDownload([resolved.Download], downloads, out string[] files, out _))
            {
                // The lists are as old as the cache: a newer version may have replaced the one they name.
                apt.Update(refresh: true);
                resolved = resolve(apt, request.Package);
                if (!apt.TryDownload([resolved.Download], downloads, out files, out string error))
                {
                    throw new TestEnvironmentException($"{request} could not be downloaded (network, mirror): {error}");
                }
            }

            if (!files.Any(file => DebianPackageFile.TryExtract(file, fits, target) is not null))
            {
                throw new InvalidDataException($"{resolved.Download} {resolved.Version} holds no file of the wanted name.");
            }

            return (resolved.Package, resolved.Version);
        }
        finally
        {
            Directory.Delete(downloads, recursive: true);
        }
    }

    /// <summary>One file of a package taken as it is, in the cache.</summary>
    public static string FetchFile(PackageRequest request, string pathInPackage, string fileName)
    {
        string entry = KernelCache.Entry("files", request.CacheName, directory => Fetch(
            request,
            static (apt, package) => new ResolvedPackage(package, apt.Show(package)["Version"], package),
            path => path.TrimStart('.', '/') == pathInPackage,
            Path.Combine(directory, fileName)));
        return Path.Combine(entry, fileName);
    }
}
