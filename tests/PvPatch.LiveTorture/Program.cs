using PvPatch.LiveTorture;

// Runs in a process of its own, because what goes wrong here takes the process with it.
TortureOptions options = TortureOptions.Parse(args);
Console.WriteLine($"--seed {options.Seed}");
switch (options.Command)
{
    case "run" when options.Sites >= SiteKind.Keys:
        using (var run = new TortureSettings(options))
        {
            return run.Execute();
        }

    case "run":
        using (var run = new TortureRun(options))
        {
            return run.Execute();
        }

    case "cost" when options.Sites < SiteKind.Keys:
        using (var run = new TortureRun(options))
        {
            return run.Measure();
        }

    case "chain":
        using (var run = new TortureChain(options))
        {
            return run.Execute();
        }

    default:
        Console.Error.WriteLine($"unknown command {options.Command} for {options.Sites}; known: run, chain, cost (of sites of operations)");
        return 64;
}
