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

    default:
        Console.Error.WriteLine($"unknown command {options.Command}; known: run");
        return 64;
}
