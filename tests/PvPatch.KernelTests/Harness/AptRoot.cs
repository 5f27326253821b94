namespace PvPatch.KernelTests.Harness;

/// <summary>
/// apt with its own lists and cache for one suite and architecture: the machine's own package state is neither
/// read nor touched, no right of root is needed, and signatures are checked as always.
/// </summary>
internal sealed class AptRoot
{
    public const string Keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

    /// <summary>Suites whose kernels come as security updates. The others (sid, backports) have none.</summary>
    private static readonly string[] s_secured = ["bullseye", "bookworm", "trixie"];

    private static readonly TimeSpan s_updateTimeout = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan s_downloadTimeout = TimeSpan.FromMinutes(10);

    private readonly string _root;
    private readonly string _suite;
    private readonly string[] _options;

    /// <summary>The caller holds the lock of this root.</summary>
    public AptRoot(string root, string suite, string architecture)
    {
        _root = root;
        _suite = suite;
        foreach (string directory in (ReadOnlySpan<string>)["etc", "none", "state/lists/partial", "cache/archives/partial"])
        {
            Directory.CreateDirectory(Path.Combine(root, directory));
        }

        File.AppendAllText(Path.Combine(root, "state/status"), string.Empty);
        _options =
        [
            "-q",
            "-o", $"Dir::Etc::sourcelist={root}/etc/sources.list",
            "-o", $"Dir::Etc::sourceparts={root}/none",
            "-o", $"Dir::Etc::preferences={root}/none/preferences",
            "-o", $"Dir::Etc::preferencesparts={root}/none",
            "-o", $"Dir::State={root}/state",
            "-o", $"Dir::State::status={root}/state/status",
            "-o", $"Dir::Cache={root}/cache",
            "-o", $"APT::Architecture={architecture}",
            "-o", $"APT::Architectures={architecture}",
            // The list files belong to this user; apt's own sandbox user could not read them below a home directory.
            "-o", "APT::Sandbox::User=root",
            "-o", "Acquire::Languages=none",
            "-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            // Suites past their support, and dated snapshots, carry an expired Valid-Until date.
            "-o", "Acquire::Check-Valid-Until=false",
            "-o", "Acquire::Retries=2",
            // Without this a failed download of the lists is only a warning and the exit code stays 0.
            "-o", "APT::Update::Error-Mode=any",
        ];
    }

    private string UpdatedMark => Path.Combine(_root, "updated");

    /// <summary>Fetches the package lists, unless they are there and no refresh is asked for.</summary>
    /// <exception cref="TestEnvironmentException">The archive could not be reached.</exception>
    public void Update(bool refresh)
    {
        if (!refresh && File.Exists(UpdatedMark))
        {
            return;
        }

        File.Delete(UpdatedMark);
        DebianMirrors mirrors = DebianMirrors.OfThisMachine();
        string[] sources = [SourceLine(mirrors.Main, _suite)];
        string sourceList = Path.Combine(_root, "etc/sources.list");
        if (mirrors.Security is not null && s_secured.Contains(_suite))
        {
            File.WriteAllLines(sourceList, [.. sources, SourceLine(mirrors.Security, $"{_suite}-security")]);
            if (Run("apt-get", ["update"], s_updateTimeout).Succeeded)
            {
                File.WriteAllText(UpdatedMark, "with the security suite\n");
                return;
            }
        }

        // A mirror in the middle of a sync, or without the security archive, still has the suite itself.
        File.WriteAllLines(sourceList, sources);
        ToolResult update = Run("apt-get", ["update"], s_updateTimeout);
        if (!update.Succeeded)
        {
            throw new TestEnvironmentException(
                $"The package lists of Debian {_suite} could not be fetched (network, mirror): {update.Tail()}");
        }

        File.WriteAllText(UpdatedMark, "without the security suite\n");
    }

    /// <summary>The control stanza of the newest version of a package.</summary>
    public Dictionary<string, string> Show(string package)
    {
        ToolResult show = Run("apt-cache", ["show", "--no-all-versions", package], s_updateTimeout);
        return ControlText.Stanzas(show.Output).FirstOrDefault()
            ?? throw new InvalidOperationException($"Debian {_suite} has no package {package}: {show.Tail()}");
    }

    /// <summary>Downloads packages; false if the archive has them no longer or is not reached.</summary>
    public bool TryDownload(IEnumerable<string> packages, string directory, out string[] files, out string error)
    {
        ToolResult download = Run("apt-get", ["download", .. packages], s_downloadTimeout, directory);
        files = Directory.GetFiles(directory, "*.deb");
        error = download.Tail();
        return download.Succeeded;
    }

    private static string SourceLine(string address, string suite)
    {
        return $"deb [signed-by={Keyring}] {address} {suite} main";
    }

    private ToolResult Run(string command, string[] arguments, TimeSpan timeout, string? directory = null)
    {
        try
        {
            return ExternalTool.Run(command, [.. _options, .. arguments], timeout, directory);
        }
        catch (TimeoutException exception)
        {
            throw new TestEnvironmentException($"The Debian archive is too slow or not reached: {exception.Message}", exception);
        }
    }
}
