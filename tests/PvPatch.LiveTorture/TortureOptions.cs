using System.Globalization;
using PvPatch.Locks;

namespace PvPatch.LiveTorture;

/// <summary>What is tortured: sites of which class, by which protocol.</summary>
internal enum SiteKind
{
    Atomic8,
    Atomic16,
    Line,
    Spin,
    Forward,
    Host,
    Mixed,

    /// <summary>Sites of keys, of branches, of calls, of constants, of variants.</summary>
    Keys,
    Branches,
    Calls,
    Constants,
    Variants,

    /// <summary>Operations with an argument, with operands in registers of their own, on words of the executor.</summary>
    Arguments,
    Operands,
    Words,

    /// <summary>Functions and vectors replaced whole; links that the code itself asks for.</summary>
    Entries,
    Requests,

    /// <summary>All from keys on, and operations.</summary>
    Settings,
}

/// <summary>How sites are written. All but the first are wrong, and must be seen to be.</summary>
internal enum Protocol
{
    Library,
    ByteCopy,
    NoBarrier,
    CallNotAtEnd,
    ManagedGuard,
    NoGrace,
    LabelLeftOut,
    ToldEarly,
    WrongArgument,
    WrongRegister,
    OtherWords,
    EntryLeftOut,

    /// <summary>
    /// Of locks: an unlock that reads, adds and stores the whole word; one before the last store that the lock guards; a host that lets a
    /// thread sleep without a last look; a switch of sites while waiters sleep.
    /// </summary>
    TornUnlock,
    EarlyUnlock,
    LostKick,
    NoDrain,
}

/// <summary>The command line.</summary>
internal sealed record TortureOptions
{
    public string Command { get; init; } = "run";

    public SiteKind Sites { get; init; } = SiteKind.Mixed;

    public Protocol Protocol { get; init; }

    public double Seconds { get; init; } = 2;

    public int Executors { get; init; } = 2;

    /// <summary>Sites switched at once; 0 for all.</summary>
    public int Batch { get; init; }

    /// <summary>Pause between batches; 0 for none.</summary>
    public int PauseMicroseconds { get; init; }

    /// <summary>Sites that are to be changed in all, by the command that counts them.</summary>
    public long Flips { get; init; } = 1_000_000;

    /// <summary>Whether a thread collects garbage all the time.</summary>
    public bool Collect { get; init; }

    /// <summary>
    /// Whether executors enter by a call that keeps the thread in the runtime's cooperative mode, so that the collector must wait for them.
    /// </summary>
    public bool Suppress { get; init; }

    /// <summary>The kind of locks; all, one after the other, where <see langword="null"/>.</summary>
    public SpinLockKind? Kind { get; init; }

    /// <summary>Whether every fourth batch links sites to targets of their own.</summary>
    public bool Links { get; init; }

    /// <summary>Where random numbers start: the same code and the same choices again, though not the same moments.</summary>
    public int Seed { get; init; } = Random.Shared.Next();

    public static TortureOptions Parse(string[] arguments)
    {
        var options = new TortureOptions();
        for (int i = 0; i < arguments.Length; i++)
        {
            string name = arguments[i];
            if (!name.StartsWith('-'))
            {
                options = options with { Command = name };
                continue;
            }

            if (name is "--collect" or "--suppress" or "--links")
            {
                options = name switch
                {
                    "--collect" => options with { Collect = true },
                    "--suppress" => options with { Suppress = true },
                    _ => options with { Links = true },
                };
                continue;
            }

            if (i + 1 == arguments.Length)
            {
                throw new ArgumentException($"{name} wants a value");
            }

            string value = arguments[++i];
            options = name switch
            {
                "--sites" => options with { Sites = Enum.Parse<SiteKind>(value, ignoreCase: true) },
                "--protocol" =>
                    options with { Protocol = Enum.Parse<Protocol>(value.Replace("-", "", StringComparison.Ordinal), ignoreCase: true) },
                "--kind" => options with { Kind = Enum.Parse<SpinLockKind>(value, ignoreCase: true) },
                "--seconds" => options with { Seconds = double.Parse(value, CultureInfo.InvariantCulture) },
                "--executors" => options with { Executors = int.Parse(value, CultureInfo.InvariantCulture) },
                "--batch" => options with { Batch = int.Parse(value, CultureInfo.InvariantCulture) },
                "--flips" => options with { Flips = long.Parse(value, CultureInfo.InvariantCulture) },
                "--pause" => options with { PauseMicroseconds = int.Parse(value, CultureInfo.InvariantCulture) },
                "--seed" => options with { Seed = int.Parse(value, CultureInfo.InvariantCulture) },
                _ => throw new ArgumentException($"unknown option {name}"),
            };
        }

        return options;
    }
}
