namespace PvPatch.KernelTests.Harness;

/// <summary>Takes files out of packages of the Debian archive.</summary>
internal static class DebianArchive
{
    /// <summary>Resolves, downloads and extracts one file; the apt root of the suite is locked meanwhile.</summary>
    /// <returns>Name and version of the real package.</returns>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static (string Package, string Version) Fetch(
        PackageRequest request, Func<AptRoot, string, ResolvedPackage> resolve, Func<string, bool> fits, string target)
    {
        return Fetch(
            request, resolve, $"{target}.debs", files => files.Any(file => DebianPackageFile.TryExtract(file, fits, target) is not null));
    }

    /// <summary>Resolves, downloads and has files taken; the apt root of the suite is locked meanwhile.</summary>
    /// <param name="request">The package.</param>
    /// <param name="resolve">Finds the real packages.</param>
    /// <param name="downloads">A directory for the packages, which goes away again.</param>
    /// <param name="take">Takes what is wanted out of the packages; false if it is not there.</param>
    /// <returns>Name and version of the real package.</returns>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static (string Package, string Version) Fetch(
        PackageRequest request, Func<AptRoot, string, ResolvedPackage> resolve, string downloads, Func<string[], bool> take)
    {
        string name = $"{request.Suite}-{request.Architecture}";
        using FileLock held = KernelCache.Lock("apt", name);
        AptRoot apt = new(Path.Combine(KernelCache.Root, "apt", name), request.Suite, request.Architecture);
        Directory.CreateDirectory(downloads);
        try
        {
            apt.Update(refresh: false);
            ResolvedPackage resolved = resolve(apt, request.Package);
            if (!apt.TryDownload(resolved.Downloads, downloads, out string[] files, out _))
            {
                // The lists are as old as the cache: a newer version may have replaced the one they name.
                apt.Update(refresh: true);
                resolved = resolve(apt, request.Package);
                if (!apt.TryDownload(resolved.Downloads, downloads, out files, out string error))
                {
                    throw new TestEnvironmentException($"{request} could not be downloaded (network, mirror): {error}");
                }
            }

            if (!take(files))
            {
                throw new InvalidDataException($"{string.Join(", ", resolved.Downloads)} {resolved.Version} do not hold the wanted files.");
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
