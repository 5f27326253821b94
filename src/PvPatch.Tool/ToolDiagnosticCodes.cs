namespace PvPatch.Tool;

/// <summary>The codes of the findings of the command line itself. A code never changes its meaning.</summary>
internal static class ToolDiagnosticCodes
{
    /// <summary>The command line cannot be understood.</summary>
    public const string Usage = "PV7001";

    /// <summary>The text is no address, or no site has a byte there.</summary>
    public const string NoSiteAtAddress = "PV7002";

    /// <summary>No slot matches the pattern.</summary>
    public const string NoSlotMatches = "PV7003";

    /// <summary>The output would replace a file that is read.</summary>
    public const string OutputIsInput = "PV7004";

    /// <summary>A stored plan cannot be read from its file.</summary>
    public const string PlanUnreadable = "PV7005";

    /// <summary>The image is not the given original patched for any backend that is known.</summary>
    public const string NotThatOriginal = "PV7006";

    /// <summary>A file that an option names cannot be read.</summary>
    public const string OptionFileUnreadable = "PV7007";

    /// <summary>The machine did not run on the backend that was asked for.</summary>
    public const string AnotherBackend = "PV7008";

    /// <summary>A stored plan is not one of the image it is to take back.</summary>
    public const string NotAPlanOfImage = "PV7009";

    /// <summary>The user stopped the work.</summary>
    public const string Cancelled = "PV7090";

    /// <summary>There is not enough memory.</summary>
    public const string OutOfMemory = "PV7091";

    /// <summary>A mistake in the tool.</summary>
    public const string Internal = "PV7099";
}
