using PvPatch.Live;

namespace PvPatch.LiveTorture;

/// <summary>What a batch changes of the settings, at random, and what they are told to be around it.</summary>
internal sealed class SettingChanges(SettingCode code, TortureOptions options, SettingWords words)
{
    private readonly Random _random = new(unchecked(options.Seed + 1));
    private int _backend;
    private int _implementation;

    /// <summary>Which settings change: some, or the number of them asked for.</summary>
    public bool[] Choose()
    {
        bool[] chosen = new bool[code.WordCount];
        for (int i = 0; i < chosen.Length; i++)
        {
            chosen[i] = options.Batch == 0 && _random.Next(3) != 0;
        }

        for (int i = 0; i < options.Batch; i++)
        {
            chosen[_random.Next(chosen.Length)] = true;
        }

        for (int i = 0; i < code.Keys.Length / 2; i++)
        {
            chosen[code.PairWord + i] = chosen[2 * i] || chosen[2 * i + 1];
        }

        return chosen;
    }

    /// <summary>Tells that they are in motion.</summary>
    public void Begin(bool[] chosen)
    {
        if (options.Protocol == Protocol.ToldEarly)
        {
            ToldEarly(chosen);
        }
        else
        {
            words.Tell(chosen, inMotion: true);
        }
    }

    /// <summary>Gives those that were chosen other values.</summary>
    public void Change(LiveChanges changes, bool[] chosen)
    {
        for (int i = 0; i < code.Keys.Length; i++)
        {
            _ = !chosen[i] ? changes : code.Keys[i].IsEnabled ? changes.Disable(code.Keys[i]) : changes.Enable(code.Keys[i]);
        }

        for (int i = 0; i < code.Branches.Length; i++)
        {
            int way = _random.Next(-1, SettingCounts.Ways);
            _ = !chosen[code.BranchWord + i] ? changes : changes.Set(code.Branches[i], way < 0 ? null : way);
        }

        for (int i = 0; i < code.Calls.Length; i++)
        {
            int target = _random.Next(-2, code.Targets.Length);
            _ = !chosen[code.CallWord + i] ? changes
                : target == -1 ? changes.ReturnZero(code.Calls[i])
                : changes.Target(code.Calls[i], target < 0 ? null : code.Targets[target]);
        }

        if (chosen[code.ConstantWord])
        {
            changes.Set(code.Constant, _random.Next(SettingCode.ConstantValues));
        }

        if (chosen[code.EntryWord])
        {
            Implement(changes, _random.Next(SettingCode.Implementations));
        }

        if (chosen[code.OpWord])
        {
            _backend = _random.Next(SettingCounts.Backends);
            changes.Use(code.Backends.All[_backend]);
        }
    }

    /// <summary>Tells what those that were chosen are now.</summary>
    public void End(bool[] chosen)
    {
        Note();
        words.Tell(chosen, inMotion: false);
    }

    /// <summary>What the keys of each pair are.</summary>
    public void NotePairs()
    {
        for (int i = 0; i < code.Keys.Length / 2; i++)
        {
            words.Values[code.PairWord + i] = words.Values[2 * i] | words.Values[2 * i + 1] << 1;
        }
    }

    /// <summary>All entries and the table together.</summary>
    private void Implement(LiveChanges changes, int n)
    {
        _implementation = n;
        changes.Set(code.Table, (long)code.Tables[n].Value);
        for (int i = options.Protocol == Protocol.EntryLeftOut ? 1 : 0; i < code.Entries.Length; i++)
        {
            changes.Target(code.Entries[i], n == 0 ? null : code.EntryTargets[n][i]);
        }
    }

    /// <summary>As a host would that takes its wish for the deed: keys are said to be what the batch is yet to make them.</summary>
    private void ToldEarly(bool[] chosen)
    {
        Array.Clear(chosen, code.BranchWord, chosen.Length - code.BranchWord);
        for (int i = 0; i < code.Keys.Length; i++)
        {
            words.Values[i] ^= chosen[i] ? 1 : 0;
        }

        NotePairs();
        words.Tell(chosen, inMotion: false);
    }

    /// <summary>What the settings are now.</summary>
    private void Note()
    {
        long[] values = words.Values;
        for (int i = 0; i < code.Keys.Length; i++)
        {
            values[i] = code.Keys[i].IsEnabled ? 1 : 0;
        }

        NotePairs();
        for (int i = 0; i < code.Branches.Length; i++)
        {
            values[code.BranchWord + i] = code.Branches[i].Way + 1 ?? 0;
        }

        for (int i = 0; i < code.Calls.Length; i++)
        {
            values[code.CallWord + i] = code.Calls[i].ReturnsZero ? 0
                : code.Calls[i].Target is VirtualAddress target ? Array.IndexOf(code.Targets, target) + 1 : SettingCounts.Nothing;
        }

        values[code.OpWord] = _backend;
        values[code.ConstantWord] = code.Constant.Value;
        values[code.EntryWord] = _implementation;
    }
}
