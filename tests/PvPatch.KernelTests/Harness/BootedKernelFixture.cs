using System.Collections.Concurrent;

namespace PvPatch.KernelTests.Harness;

/// <summary>Boots every kernel once, at first use, for all tests of <see cref="KernelCollection"/>.</summary>
public sealed class BootedKernelFixture : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("pvpatch-dumps-").FullName;

    // A Lazy keeps a failure too: an archive out of reach is found out once, not by every test anew.
    private readonly ConcurrentDictionary<(string Source, MachineOptions Options), Lazy<BootedKernel>> _boots = [];

    /// <summary>A Debian kernel, fetched and booted. Skips the calling test if something for that is missing.</summary>
    /// <param name="request">The package; its architecture goes into the options.</param>
    /// <param name="options">Null for <see cref="MachineOptions.Default"/>.</param>
    public BootedKernel Boot(PackageRequest request, MachineOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(request);
        Require.PackageFetching();
        Require.KernelBooting();
        MachineOptions setup = (options ?? MachineOptions.Default) with { Architecture = request.Architecture };
        return Once(request.ToString(), setup, directory =>
        {
            DebianKernel package = DebianKernel.Fetch(request);
            bool borrows = setup.AnswersLeaves || setup.Xen is not null;
            BootedKernel? sameCode = borrows ? Boot(request) : null;
            return BootedKernel.Boot(package.ImagePath, setup, directory, package, sameCode?.Report.Symbols);
        });
    }

    /// <summary>A kernel file, booted: a bzImage, or an ELF such as one with patched sites.</summary>
    /// <param name="imagePath">The file; one path stands for one content as long as the fixture lives.</param>
    /// <param name="options">Null for <see cref="MachineOptions.Default"/>.</param>
    /// <param name="sameCode">
    /// A boot of a kernel with the same addresses, whose symbols are used: under Xen that is quicker, and as a guest of another
    /// hypervisor they say where it is told about that. Null boots the file natively for the latter, which an image patched for
    /// a hypervisor need not survive.
    /// </param>
    public BootedKernel Boot(string imagePath, MachineOptions? options = null, BootedKernel? sameCode = null)
    {
        Require.KernelBooting();
        string path = Path.GetFullPath(imagePath);
        MachineOptions setup = options ?? MachineOptions.Default;
        if (setup.Xen is not null)
        {
            Require.PackageFetching();
        }

        return Once(path, setup, directory =>
        {
            BootedKernel? symbols = sameCode ?? (setup.AnswersLeaves ? Boot(path) : null);

            // Symbols of another boot are of no use to a kernel that chooses its place anew.
            symbols = setup.Kaslr ? null : symbols;
            return BootedKernel.Boot(path, setup, directory, package: null, symbols?.Report.Symbols);
        });
    }

    /// <summary>A Debian kernel, fetched only. Skips the calling test if it cannot be had.</summary>
    public DebianKernel Fetch(PackageRequest request)
    {
        Require.PackageFetching();
        return Require.Available(() => DebianKernel.Fetch(request));
    }

    public void Dispose()
    {
        Directory.Delete(_directory, recursive: true);
    }

    private BootedKernel Once(string source, MachineOptions options, Func<string, BootedKernel> boot)
    {
        Lazy<BootedKernel> kernel = _boots.GetOrAdd(
            (source, options),
            _ => new Lazy<BootedKernel>(() => boot(Directory.CreateDirectory(
                Path.Combine(_directory, Guid.NewGuid().ToString("N"))).FullName)));
        return Require.Available(() => kernel.Value);
    }
}
