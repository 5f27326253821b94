namespace PvPatch.KernelTests.Harness;

/// <summary>A kernel as Debian ships it and some of its modules, all out of one version of its packages, in the cache.</summary>
/// <param name="Kernel">The kernel.</param>
/// <param name="Paths">The modules as they are shipped (.ko or .ko.xz), in the order asked for.</param>
public sealed record DebianModules(DebianKernel Kernel, IReadOnlyList<string> Paths)
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(1);

    /// <summary>Kernel and modules out of the cache, or fetched into it.</summary>
    /// <param name="request">The kernel's package.</param>
    /// <param name="names">The modules' names as their files have them, without ".ko".</param>
    /// <exception cref="TestEnvironmentException">The archive cannot be reached.</exception>
    public static DebianModules Fetch(PackageRequest request, params IReadOnlyList<string> names)
    {
        // An entry of its own: kernel and modules have to be of one version, which the archive may have replaced since.
        string entry = KernelCache.Entry(
            "modules", $"{request.CacheName}_{string.Join('_', names)}", directory => Fill(request, names, directory));
        string[] files = Directory.GetFiles(entry);
        return new DebianModules(DebianKernel.Read(entry), [.. names.Select(name => files.Single(file => IsModule(file, name)))]);
    }

    /// <summary>Writes the modules to a directory as they are loaded: not packed.</summary>
    /// <returns>Their paths, in the order of <see cref="Paths"/>.</returns>
    public IReadOnlyList<string> Unpack(string directory)
    {
        return [.. Paths.Select(path => Unpack(path, directory))];
    }

    private static string Unpack(string path, string directory)
    {
        bool packed = path.EndsWith(".xz", StringComparison.Ordinal);
        string target = Path.Combine(directory, Path.GetFileName(packed ? path[..^3] : path));
        if (!packed)
        {
            File.Copy(path, target);
            return target;
        }

        ToolResult result = ExternalTool.Run("xz", ["-dc", path], s_timeout, stream =>
        {
            using FileStream file = File.Create(target);
            stream.CopyTo(file);
            return string.Empty;
        });
        return result.Succeeded ? target : throw new InvalidDataException($"xz cannot read {path}: {result.Error}");
    }

    private static void Fill(PackageRequest request, IReadOnlyList<string> names, string directory)
    {
        (string package, string version) = DebianArchive.Fetch(
            request,
            static (apt, name) => DebianKernel.Resolve(apt, name, modules: true),
            Path.Combine(directory, "debs"),
            files => files.Sum(file => DebianPackageFile.ExtractAll(file, path => Target(path, names, directory))) == names.Count + 1);
        DebianKernel.Write(request, package, version, directory);
    }

    private static string? Target(string path, IReadOnlyList<string> names, string directory)
    {
        return DebianKernel.IsImage(path) ? Path.Combine(directory, DebianKernel.ImageName)
            : names.Any(name => IsModule(path, name)) ? Path.Combine(directory, Path.GetFileName(path))
            : null;
    }

    private static bool IsModule(string path, string name)
    {
        return Path.GetFileName(path) is string file && (file == $"{name}.ko" || file == $"{name}.ko.xz");
    }
}
