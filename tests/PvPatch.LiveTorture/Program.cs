using PvPatch.LiveTorture;

// Runs in a process of its own, because what goes wrong here takes the process with it.
TortureOptions options = TortureOptions.Parse(args);
Console.WriteLine($"--seed {options.Seed}");
switch (options.Command)
{
    case "run":
        using (var run = new TortureRun(options))
        {
            return run.Execute();
        }

    case "cost":
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
        Console.Error.WriteLine($"unknown command {options.Command}; known: run, chain, cost");
        return 64;
}
