using System.Runtime.InteropServices;
using PvPatch.Live;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Links that generated code asks for without leaving: a stub it calls now and then asks for a link of the site that called it, to one of
/// several targets; whichever batch comes next makes it, the patcher's or one at an executor's safepoint. The patcher unlinks sites again.
/// Each site has a word of its own, which tells where it leads to.
/// <code>
///            an executor, in the stub          the patcher, behind a batch          the patcher, before a batch
/// unlinked ──────► asking ──────► queued ──────────────────────────────► linked ──────► leaving ──────► unlinked
///                  in motion      in motion    told: the target                        in motion       told: 0
/// </code>
/// </summary>
internal sealed unsafe class AskedLinks
{
    public const int SitesInFunction = 12;

    private const int AskEvery = 16; // calls of the stub: between them it is checked as a site that leads nowhere
    private const int Unlinked = 0;
    private const int Asking = 1;
    private const int Queued = 2;
    private const int Linked = 3;
    private const int Leaving = 4;

    private static AskedLinks? s_current; // whom the stub asks: one at a time

    private readonly CodeArena _arena;
    private readonly LivePatcher _patcher;
    private readonly SettingWords _words;
    private readonly int _firstWord;
    private readonly bool _toldEarly;
    private readonly (VirtualAddress Address, RegisterSet Destroys)[] _targets;
    private readonly LiveSite[][] _sites; // by function
    private readonly int[] _generation; // by function: which of two sets of words its sites have
    private readonly int[] _states; // by word
    private readonly int[] _askedFor; // by word: the target's number
    private int _calls;
    private long _asked;
    private string? _fault;

    public AskedLinks(
        CodeArena arena, LivePatcher patcher, SettingWords words, int firstWord, int functions,
        (VirtualAddress Address, RegisterSet Destroys)[] targets, bool toldEarly)
    {
        _arena = arena;
        _patcher = patcher;
        _words = words;
        _firstWord = firstWord;
        _toldEarly = toldEarly;
        _targets = targets;
        _sites = [.. Enumerable.Repeat<LiveSite[]>([], functions)];
        _generation = new int[functions];
        _states = new int[WordCount(functions)];
        _askedFor = new int[_states.Length];
        s_current = this;
    }

    /// <summary>Links that were queued, and links that were seen made.</summary>
    public (long Queued, long Made) Total => (Volatile.Read(ref _asked), Made);

    /// <summary>What is wrong, if anything is.</summary>
    public string? Fault => Volatile.Read(ref _fault);

    private long Made { get; set; }

    /// <summary>Words for some functions: two sets for each, for a new function runs beside the one it replaces.</summary>
    public static int WordCount(int functions) => 2 * functions * SitesInFunction;

    /// <summary>A function that asks with its return address and eax, a word's number, and gives 0. All else is kept, flags too.</summary>
    public static VirtualAddress EmitStub(CodeArena arena) => SettingBackends.Function(arena, static a =>
    {
        a.pushfq();
        Array.ForEach(CheckedSite.Kept, a.push);
        a.mov(rdi, __qword_ptr[rsp + 8 * (CheckedSite.Kept.Length + 1)]);
        a.mov(esi, eax);
        a.push(rbp);
        a.mov(rbp, rsp);
        a.and(rsp, -16);
        a.mov(rax, (ulong)(nint)(delegate* unmanaged<ulong, int, void>)&Ask);
        a.call(rax);
        a.mov(rsp, rbp);
        a.pop(rbp);
        Array.ForEach([.. CheckedSite.Kept.Reverse()], a.pop);
        a.popfq();
        a.mov(eax, 0);
    });

    /// <summary>The first of a new function's words. Whoever ran the one before the last has left it.</summary>
    public int Begin(int function)
    {
        _generation[function] ^= 1;
        int first = (2 * function + _generation[function]) * SitesInFunction;
        for (int i = 0; i < SitesInFunction; i++)
        {
            _words.Values[_firstWord + first + i] = 0;
            _words.Tell(_firstWord + first + i, inMotion: false);
            Volatile.Write(ref _states[first + i], Unlinked);
        }

        return _firstWord + first;
    }

    /// <summary>Takes the sites of a new function in the place of those before, before anyone runs it.</summary>
    public void End(int function, CodeBlock block) => _sites[function] =
        [.. Enumerable.Range(0, block.SiteCount).Select(i => block[i]).Where(static s => s.Slot?.ToString() == SettingBackends.Ask)];

    /// <summary>Before a batch: sites that it is to unlink.</summary>
    public List<LiveSite> Leave(Random random)
    {
        var sites = new List<LiveSite>();
        ForAll((site, i) =>
        {
            if (Volatile.Read(ref _states[i]) == Linked && random.Next(8) == 0)
            {
                Volatile.Write(ref _states[i], Leaving);
                _words.Tell(_firstWord + i, inMotion: true);
                sites.Add(site);
            }
        });
        return sites;
    }

    /// <summary>Behind a batch: what was queued and is made by now, by whomever, and what was unlinked.</summary>
    public void Settle() => ForAll((site, i) =>
    {
        int state = Volatile.Read(ref _states[i]);
        if (state == Leaving || (state == Queued && site.State == LiveSiteState.Linked))
        {
            Made += state == Queued ? 1 : 0;
            _words.Values[_firstWord + i] = state == Queued ? _askedFor[i] + 1 : 0;
            _words.Tell(_firstWord + i, inMotion: false);
            Volatile.Write(ref _states[i], state == Queued ? Linked : Unlinked);
        }
    });

    /// <summary>At the end, when nobody runs: everything that was queued is made, and leads where it was asked to.</summary>
    public string? Finish()
    {
        _patcher.ApplyRequests();
        Settle();
        string? wrong = Fault ?? (_patcher.RequestCount == 0 ? null : "requests are left in the queue");
        ForAll((site, i) =>
        {
            bool isLinked = _states[i] == Linked;
            if (_states[i] is not (Linked or Unlinked) || isLinked != (site.State == LiveSiteState.Linked)
                || (isLinked && site.Target != _targets[_askedFor[i]].Address))
            {
                wrong ??= $"a link that was asked for was not made: state {_states[i]}, {site}";
            }
        });
        return wrong;
    }

    [UnmanagedCallersOnly]
    private static void Ask(ulong returnAddress, int word) => s_current!.Request(returnAddress, word);

    private void Request(VirtualAddress returnAddress, int word)
    {
        int i = word - _firstWord;
        if ((Interlocked.Increment(ref _calls) & (AskEvery - 1)) != 0
            || Interlocked.CompareExchange(ref _states[i], Asking, Unlinked) != Unlinked)
        {
            return;
        }

        if (!_arena.TryFindCaller(returnAddress, out LiveSite site))
        {
            Volatile.Write(ref _fault, $"no site has the return address {returnAddress}");
            return;
        }

        int target = (int)((uint)Interlocked.Increment(ref _calls) % (uint)_targets.Length);
        _askedFor[i] = target;
        _words.Tell(word, inMotion: true); // whoever makes the link takes a lock first: this is seen before it
        LinkRequestStatus status = _patcher.RequestLink(new SiteLink(site, _targets[target].Address, _targets[target].Destroys));
        if (status != LinkRequestStatus.Queued)
        {
            // Its block was retired, or there is no room.
            _words.Tell(word, inMotion: false);
            Volatile.Write(ref _states[i], Unlinked);
            return;
        }

        Interlocked.Increment(ref _asked);
        if (_toldEarly)
        {
            _words.Values[word] = target + 1;
            _words.Tell(word, inMotion: false);
        }

        Volatile.Write(ref _states[i], Queued);
    }

    private void ForAll(Action<LiveSite, int> action)
    {
        for (int function = 0; function < _sites.Length; function++)
        {
            int first = (2 * function + _generation[function]) * SitesInFunction;
            for (int i = 0; i < _sites[function].Length; i++)
            {
                action(_sites[function][i], first + i);
            }
        }
    }
}
