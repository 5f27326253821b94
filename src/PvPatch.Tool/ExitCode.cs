namespace PvPatch.Tool;

/// <summary>Exit codes of the process. Scripts rely on the numbers; <c>docs/tool.md</c> lists them.</summary>
internal enum ExitCode
{
    /// <summary>Done.</summary>
    Success = 0,

    /// <summary>The command line is wrong: an unknown command, option, backend, slot or address.</summary>
    Usage = 1,

    /// <summary>A file cannot be read, or is not what was asked for, or is of a kind that is not supported.</summary>
    BadInput = 2,

    /// <summary>The request is not safe: unknown bytes at a site, an output that is the input.</summary>
    Refused = 3,

    /// <summary>The output file cannot be written.</summary>
    OutputUnwritable = 4,

    /// <summary>A program that is needed (to unpack a kernel) is not installed.</summary>
    MissingProgram = 5,

    /// <summary>
    /// A comparison with differences: memory with sites tampered with or of another backend, plans that differ, sites that destroy what is
    /// read behind them, code that breaks its slot's convention.
    /// </summary>
    Different = 6,

    /// <summary>The memory was dumped before the kernel patched itself.</summary>
    NotPatched = 7,

    /// <summary>No difference in what could be compared, but the memory lacks sites.</summary>
    Incomplete = 8,

    /// <summary>An internal error of the tool, or of the engine in a check of the demo.</summary>
    Internal = 70,

    /// <summary>Stopped by the user: 128 + SIGINT, as shells count it, whichever signal it was.</summary>
    Cancelled = 130,
}
