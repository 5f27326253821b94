using PvPatch.LiveTorture;

// Runs in a process of its own, because what goes wrong here takes the process with it.
TortureOptions options = TortureOptions.Parse(args);
Console.WriteLine($"--seed {options.Seed}");
switch (options.Command)
{
    case "run" when options.Sites >= SiteKind.Keys
            && options.Protocol is Protocol.Library or Protocol.ByteCopy or (>= Protocol.LabelLeftOut and < Protocol.TornUnlock):
        using (var run = new TortureSettings(options))
        {
            return run.Execute();
        }

    case "run" when options.Sites < SiteKind.Keys && options.Protocol < Protocol.LabelLeftOut:
        using (var run = new TortureRun(options))
        {
            return run.Execute();
        }

    case "cost" when options.Sites < SiteKind.Keys:
        using (var run = new TortureRun(options))
        {
            return run.Measure();
        }

    case "flips":
        using (var run = new TortureFlips(options))
        {
            return run.Execute();
        }

    case "chain":
        using (var run = new TortureChain(options))
        {
            return run.Execute();
        }

    case "locks" when options.Protocol is Protocol.Library or >= Protocol.TornUnlock:
        using (var run = new TortureLocks(options))
        {
            return run.Execute();
        }

    default:
        Console.Error.WriteLine(
            $"no command {options.Command} for {options.Sites} and {options.Protocol}; known: run, flips, chain, locks, cost");
        return 64;
}
