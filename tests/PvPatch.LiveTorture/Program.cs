using PvPatch.LiveTorture;

// Runs in a process of its own, because what goes wrong here takes the process with it.
TortureOptions options = TortureOptions.Parse(args);
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

    default:
        Console.Error.WriteLine($"unknown command {options.Command}; known: run, cost");
        return 64;
}
