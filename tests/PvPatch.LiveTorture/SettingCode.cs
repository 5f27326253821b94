using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Settings, and functions whose sites follow them: keys, branches, calls, a constant, entries, the backend. The host tells in a word what
/// each setting is: its value, or that it is in motion. A site reads the word, runs, reads it again: where it stood still, the site must
/// have done exactly that. So every execution is checked, and one that still runs what was replaced before the batch was over is a fault.
/// </summary>
internal sealed class SettingCode : IDisposable
{
    public const int Loops = 64;
    public const int ConstantValues = 4;
    public const int Implementations = 4; // of entries; the functions themselves are number 0

    private const int SitesOfKind = 12;

    private static readonly SiteKind[] s_kinds =
    [
        SiteKind.Keys, SiteKind.Branches, SiteKind.Calls, SiteKind.Constants, SiteKind.Variants, SiteKind.Arguments, SiteKind.Operands,
        SiteKind.Words, SiteKind.Entries, SiteKind.Requests, SiteKind.Settings,
    ];

    private readonly CodeArena _far = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
    private readonly TortureOptions _options;
    private readonly SettingSites _settings;
    private readonly OperationSites _operations;

    public SettingCode(TortureOptions options, int keys = 4, long size = 16 << 20)
    {
        _options = options;
        var random = new Random(options.Seed);
        Keys = [.. Enumerable.Range(0, keys).Select(static i => new StaticKey($"key {i}", enabled: i == 3))];
        Arena = CodeArena.Reserve(size: size);
        WordsBehindRegister = !Arena.CanSetGsBase || options.Protocol == Protocol.OtherWords || random.Next(2) == 0;
        Backends = new SettingBackends(Arena, WordsBehindRegister);
        Targets = [Giving(Arena, 1), Giving(Arena, 2), Giving(_far, 3)];
        LinkTargets = [(Targets[0], RegisterSet.Rax), (Giving(_far, 2), RegisterSet.Rax),
            (Giving(Arena, 3, wild: true), RegisterSet.Rax | RegisterSet.Rcx)];
        for (int n = 0; n < Implementations; n++)
        {
            VirtualAddress[] whole = [.. Enumerable.Range(0, Entries.Length).Select(e => SettingBackends.Function(
                Arena, a => OperationSites.Implement(a, e, n)))];
            var vectors = new Assembler(64);
            Array.ForEach(whole, w => vectors.dq(w.Value));
            EntryTargets.Add(whole);
            Tables.Add(Arena.Emit(vectors).Address);
        }

        _settings = new SettingSites(this, options, random);
        _operations = new OperationSites(this, options, random);
    }

    public CodeArena Arena { get; }

    public SettingBackends Backends { get; }

    /// <summary>Whether executors have their words behind rdx, not behind the gs base.</summary>
    public bool WordsBehindRegister { get; }

    /// <summary>What calls are given: they give 1, 2, 3; the last is out of reach.</summary>
    public VirtualAddress[] Targets { get; }

    /// <summary>What sites ask to be linked to: 1, near; 2, out of reach; 3, what destroys more than the sites allow.</summary>
    public (VirtualAddress Address, RegisterSet Destroys)[] LinkTargets { get; }

    public StaticKey[] Keys { get; }

    public MultiBranch[] Branches { get; } = [new("mode", SettingCounts.Ways), new("other", SettingCounts.Ways, way: 3)];

    public StaticCall[] Calls { get; } = [new("notify"), new("trace")];

    public CodeConstant Constant { get; } = new("limit", 1);

    /// <summary>Functions that are replaced whole, all at once, and the table of what replaces them.</summary>
    public StaticCall[] Entries { get; } = [new("entry 0"), new("entry 1"), new("entry 2")];

    public CodeConstant Table { get; } = new("table");

    /// <summary>For each implementation what each entry leads to.</summary>
    public List<VirtualAddress[]> EntryTargets { get; } = [];

    /// <summary>For each implementation a table of the same.</summary>
    public List<VirtualAddress> Tables { get; } = [];

    // One word for each key, each pair of keys, each branch, each call, the backend, the constant, the entries.
    public int PairWord => Keys.Length;

    public int BranchWord => PairWord + Keys.Length / 2;

    public int CallWord => BranchWord + Branches.Length;

    public int OpWord => CallWord + Calls.Length;

    public int ConstantWord => OpWord + 1;

    public int EntryWord => ConstantWord + 1;

    /// <summary>Number of words; behind them are those of sites that ask for links.</summary>
    public int WordCount => EntryWord + 1;

    public bool Has(SiteKind kind) => _options.Sites == kind || _options.Sites == SiteKind.Settings;

    public void Dispose()
    {
        Arena.Dispose();
        _far.Dispose();
    }

    /// <summary>long function(long* counts, long* words): 0, or the number of the site that failed, from 1.</summary>
    /// <param name="linkWord">The word of the first site that asks for a link.</param>
    public CodeBlock Emit(int linkWord)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Backends.Layout);
        Label loop = a.CreateLabel();
        Label leave = a.CreateLabel();
        CheckedSite.EnterFunction(a, Loops);
        a.Label(ref loop);
        var functions = new List<Action>(); // behind the function: what tail calls and entries stand in
        int number = 0;
        for (int i = 0; i < SitesOfKind; i++)
        {
            foreach (SiteKind kind in s_kinds)
            {
                if (!Has(kind))
                {
                    continue;
                }

                var place = new SitePlace(a, sites, i, ++number, leave, functions);
                if (kind < SiteKind.Arguments)
                {
                    _settings.Emit(kind, place);
                }
                else
                {
                    _operations.Emit(kind, place, linkWord);
                }
            }
        }

        a.dec(__qword_ptr[r15 + SettingCounts.LoopsLeft * 8]);
        a.jnz(loop);
        a.xor(ebx, ebx);
        a.Label(ref leave);
        CheckedSite.LeaveFunction(a);
        functions.ForEach(static f => f());
        return Arena.Emit(a, sites);
    }

    private static VirtualAddress Giving(CodeArena arena, int result, bool wild = false) => SettingBackends.Function(arena, a =>
    {
        if (wild)
        {
            a.mov(rcx, -1);
        }

        a.mov(eax, result);
    });
}

/// <summary>Where a site is emitted.</summary>
/// <param name="Assembler">The function's assembler.</param>
/// <param name="Sites">Its emitter.</param>
/// <param name="Index">The site's number among those of its kind.</param>
/// <param name="Number">Its number in the function, from 1.</param>
/// <param name="Leave">Where to go when something is wrong.</param>
/// <param name="Functions">Writes what stands behind the function.</param>
internal sealed record SitePlace(
    Assembler Assembler, SiteEmitter Sites, int Index, int Number, Label Leave, List<Action> Functions);
