using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Runtime.InteropServices;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Records;

/// <summary>Reads records and checks each by itself, then all against one another. Nothing in the table is believed.</summary>
internal sealed class SiteRecordReader
{
    private const int DirectCall = 2;
    private const int ConditionalTailCall = 2;
    private const int NoStack = 1;
    private const int Likely = 1;
    private const int InitiallyOn = 2;
    private const int InPlace = 1;
    private const int ForAbsence = 1;

    private readonly CodeImage _code;
    private readonly CodeSegment _records;
    private readonly RecordNames _names;
    private readonly DiagnosticList _found = new();
    private readonly RecordOverlaps _overlaps = new();
    private readonly HashSet<(ulong Region, string Name)> _variants = [];
    private readonly RecordedWays _ways = new();
    private int _index;
    private VirtualAddress _address;

    public SiteRecordReader(CodeImage code, CodeSegment records, CodeSegment? names)
    {
        _code = code;
        _records = records;
        _names = new RecordNames(names);
    }

    public List<PatchSite> Ops { get; } = [];

    public List<StaticKeyRecord> StaticKeys { get; } = [];

    public List<MultiBranchRecord> MultiBranches { get; } = [];

    public List<StaticCallRecord> StaticCalls { get; } = [];

    public List<ReplacementRecord> Variants { get; } = [];

    public List<ReplacementRecord> Alternatives { get; } = [];

    public Dictionary<int, VirtualAddress> SlotWords { get; } = [];

    public Dictionary<int, VirtualAddress> SlotFunctions { get; } = [];

    public bool TryRead([NotNullWhen(true)] out SiteRecords? read, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        read = null;
        ReadOnlySpan<byte> table = _records.Bytes.Span;
        if (table.Length % RecordFields.Length != 0)
        {
            _found.Add(PatchDiagnostic.Error(DiagnosticCodes.TableStride, "the table of records is cut off") with
            {
                Source = _records.Name,
                Found = $"{table.Length} bytes, {table.Length % RecordFields.Length} of them behind the last whole record",
                Expected = $"a multiple of {RecordFields.Length}",
            });
        }

        for (_index = 0; _index < table.Length / RecordFields.Length; _index++)
        {
            int at = _index * RecordFields.Length;
            _address = _records.Address + at;
            ReadRecord(new RecordFields(table.Slice(at, RecordFields.Length), _address, _code.Bitness));
        }

        _overlaps.Check(_found);
        MultiBranches.AddRange(_ways.Join(_records, _found));
        SiteTable? sites = null;
        if (!_found.HasErrors)
        {
            SiteTable.TryCreate(CollectionsMarshal.AsSpan(Ops), out sites, out IReadOnlyList<PatchDiagnostic> wrong);
            foreach (PatchDiagnostic diagnostic in wrong)
            {
                _found.Add(diagnostic);
            }
        }

        read = sites is null ? null : new SiteRecords(this, sites);
        diagnostics = _found.ToList();
        return read is not null;
    }

    private void ReadRecord(RecordFields fields)
    {
        var mechanism = (RecordMechanism)fields.Mechanism;
        if (fields.RecordVersion != RecordFields.Version || mechanism is < RecordMechanism.Ops or > RecordMechanism.MultiBranch)
        {
            Report(At(DiagnosticCodes.RecordUnknown, "the record is of a version or mechanism that is not known") with
            {
                Found = $"version {fields.RecordVersion}, mechanism {fields.Mechanism}",
                Expected = $"version {RecordFields.Version}, mechanism 1 to 6",
                Help = "Is this the section pvpatch_sites? A later pvpatch.inc needs a later PvPatch.",
            });
            return;
        }

        bool sound = IsSite(fields, mechanism);
        sound &= fields.Zero == 0 || Field("the bytes 22 and 23", fields.Zero, "0");
        sound &= _names.TryGet(fields.Name, out string? name, out PatchDiagnostic? error) || Report(error);
        sound &= mechanism switch
        {
            RecordMechanism.Ops => ReadOps(fields, name),
            RecordMechanism.StaticKey => ReadStaticKey(fields, name),
            RecordMechanism.StaticCall => ReadStaticCall(fields, name),
            RecordMechanism.MultiBranch => ReadWay(fields, name),
            _ => ReadReplacement(fields, name, mechanism),
        };
        if (sound)
        {
            _overlaps.Add(_index, mechanism, fields.Site, fields.SiteLength);
        }
    }

    private bool IsSite(RecordFields fields, RecordMechanism mechanism)
    {
        int length = fields.SiteLength;
        if (length == 0)
        {
            return Report(At(DiagnosticCodes.SiteZeroLength, "the site of the record has length 0"));
        }

        if (mechanism == RecordMechanism.Ops && length > PatchSite.MaxBudget)
        {
            return Report(At(DiagnosticCodes.SiteTooLong, "the site of the record is longer than an ops site may be") with
            {
                Found = $"{length} bytes",
                Expected = $"1 to {PatchSite.MaxBudget} bytes",
            });
        }

        return _code.Find(fields.Site, length) is not null
            || Report(At(DiagnosticCodes.SiteOutsideImage, "the site of the record lies outside the code") with
            {
                Found = $"{fields.Site}+{length}",
                Expected = _code.ToString(),
                Help = "The table is damaged, was read before its relocations were done, or has another run address.",
            });
    }

    // Ops: form 0 call, 1 jump, 2 direct call; flag 1 no stack; number: the slot; target: its word, or the function; value: clobbers.
    private bool ReadOps(RecordFields fields, string? name)
    {
        bool sound = IsForm(fields, DirectCall) & HasFlags(fields, NoStack) & HasNoSize(fields) & HasNoKey(fields) & IsNamed(fields, name);
        sound &= RegisterSet.FromBits(fields.Value).Bits == fields.Value
            || Field("the clobbers", fields.Value, $"bits of 0x{RegisterSet.All.Bits:x}");
        if (fields.Target.IsZero)
        {
            return Report(At(DiagnosticCodes.RecordTarget, "the record of an ops site names neither a word nor a function"));
        }

        Dictionary<int, VirtualAddress> known = fields.Form == DirectCall ? SlotFunctions : SlotWords;
        if (sound && !known.TryAdd(fields.Number, fields.Target) && known[fields.Number] != fields.Target)
        {
            return Report(At(DiagnosticCodes.RecordSlot, $"two records give slot {fields.Number} another word or function") with
            {
                Found = $"{fields.Target} ({name})",
                Expected = known[fields.Number].ToString(),
                Help = "Give tables apart different numbers of their first slot (first=).",
            });
        }

        Ops.Add(new PatchSite(fields.Site, fields.Number, Math.Min(fields.SiteLength, byte.MaxValue), RegisterSet.FromBits(fields.Value),
            (fields.Flags & NoStack) != 0 ? SiteTraits.NoStack : SiteTraits.None));
        return sound;
    }

    // Static keys: form 0; flag 1 likely, flag 2 initially on; target: the label.
    private bool ReadStaticKey(RecordFields fields, string? name)
    {
        bool sound = IsForm(fields, 0) & HasFlags(fields, Likely | InitiallyOn) & HasNoNumber(fields) & HasNoSize(fields)
            & HasNoValue(fields) & IsNamed(fields, name) & IsCode(fields.Target, 1);
        sound &= IsBranch(fields);
        if (sound && !IsInReach(fields))
        {
            return false;
        }

        StaticKeys.Add(new StaticKeyRecord
        {
            Address = fields.Site,
            Length = fields.SiteLength,
            Target = fields.Target,
            Key = name,
            KeyAddress = OrNone(fields.Key),
            IsLikely = (fields.Flags & Likely) != 0,
            InitialValue = (fields.Flags & InitiallyOn) != 0,
        });
        return sound;
    }

    // Multiway branches, one record a way: flag 1 laid down for this way; number: the way; target: its label, none where it falls through;
    // value: number of ways.
    private bool ReadWay(RecordFields fields, string? name)
    {
        bool sound = IsForm(fields, 0) & HasFlags(fields, InPlace) & HasNoSize(fields) & IsNamed(fields, name)
            & (fields.Target.IsZero || IsCode(fields.Target, 1)) & IsBranch(fields);
        sound &= fields.Number < fields.Value
            || Field("the number of a way", fields.Number, $"less than the number of ways, {fields.Value}");
        if (sound && !fields.Target.IsZero && !IsInReach(fields))
        {
            return false;
        }

        _ways.Add(_index, name, fields, (fields.Flags & InPlace) != 0);
        return sound;
    }

    private bool IsBranch(RecordFields fields) =>
        fields.SiteLength is 2 or 5 || Field("the length of a branch", (uint)fields.SiteLength, "2 or 5");

    private bool IsInReach(RecordFields fields) =>
        fields.SiteLength != 2 || fields.Target - (fields.Site + 2) is >= sbyte.MinValue and <= sbyte.MaxValue
        || Report(At(DiagnosticCodes.RecordTarget, "the label is out of reach of a branch of 2 bytes") with
        {
            Found = $"{fields.Target - (fields.Site + 2)} bytes",
            Expected = "-128 to 127 bytes",
            Help = "Give the branch 5 bytes (size=5).",
        });

    // Static calls: form 0 call, 1 tail call, 2 conditional tail call; number: the condition; target: the function, none where it is null.
    private bool ReadStaticCall(RecordFields fields, string? name)
    {
        bool sound = IsForm(fields, ConditionalTailCall) & HasFlags(fields, 0) & HasNoSize(fields) & HasNoValue(fields)
            & IsNamed(fields, name);
        bool conditional = fields.Form == ConditionalTailCall;
        int length = conditional ? 6 : 5;
        sound &= fields.SiteLength == length
            || Field($"the length of a static call of form {fields.Form}", (uint)fields.SiteLength, $"{length}");
        sound &= fields.Number <= (conditional ? 15 : 0) || Field("the condition", fields.Number, conditional ? "0 to 15" : "0");
        StaticCalls.Add(new StaticCallRecord
        {
            Address = fields.Site,
            Length = fields.SiteLength,
            IsTailCall = fields.Form != 0,
            Condition = conditional ? fields.Number : null,
            Key = name,
            KeyAddress = OrNone(fields.Key),
            Target = OrNone(fields.Target),
        });
        return sound;
    }

    // Variants: flag 1 stands in place; name: the backend. Alternatives: flag 1 for absence; number: the feature. Both: target and size:
    // the code.
    private bool ReadReplacement(RecordFields fields, string? name, RecordMechanism mechanism)
    {
        bool variant = mechanism == RecordMechanism.Variant;
        bool sound = IsForm(fields, 0) & HasFlags(fields, 1) & HasNoValue(fields) & HasNoKey(fields)
            & IsCode(fields.Target, fields.TargetLength);
        sound &= variant ? HasNoNumber(fields) & IsNamed(fields, name) : name is null || Field("the name of a replacement", 1, "none");
        sound &= fields.TargetLength <= fields.SiteLength
            || Field("the length of a replacement", fields.TargetLength, $"at most that of its region, {fields.SiteLength}");
        bool inPlace = variant && (fields.Flags & InPlace) != 0;
        ulong start = unchecked(fields.Target.Value - fields.Site.Value);
        bool apart = start >= (ulong)fields.SiteLength && unchecked(0 - start) >= fields.TargetLength;
        if (sound && (inPlace ? start != 0 : !apart))
        {
            return Report(At(DiagnosticCodes.RecordTarget, inPlace
                ? "the variant that stands in place is not where its region is" : "a replacement lies in the region it is for") with
            {
                Found = $"{fields.Target}+{fields.TargetLength}",
                Expected = inPlace ? fields.Site.ToString() : $"code outside of {fields.Site}+{fields.SiteLength}",
            });
        }

        if (sound && variant && !_variants.Add((fields.Site.Value, name!)))
        {
            return Report(At(DiagnosticCodes.RecordName, "a region has two variants of one name") with
            {
                Found = name,
                Expected = "one variant for each backend",
            });
        }

        (variant ? Variants : Alternatives).Add(new ReplacementRecord
        {
            Address = fields.Site,
            Length = fields.SiteLength,
            Code = fields.Target,
            CodeLength = fields.TargetLength,
            Backend = name,
            Feature = fields.Number,
            IsForAbsence = !variant && (fields.Flags & ForAbsence) != 0,
        });
        return sound;
    }

    private bool IsForm(RecordFields fields, int last) => fields.Form <= last || Field("the form", fields.Form, $"0 to {last}");

    private bool HasFlags(RecordFields fields, int known) =>
        (fields.Flags & ~known) == 0 || Field("the flags", fields.Flags, $"bits of {known}");

    private bool HasNoNumber(RecordFields fields) => fields.Number == 0 || Field("the number", fields.Number, "0");

    private bool HasNoSize(RecordFields fields) => fields.TargetLength == 0 || Field("the length of the target", fields.TargetLength, "0");

    private bool HasNoValue(RecordFields fields) => fields.Value == 0 || Field("the value", fields.Value, "0");

    private bool HasNoKey(RecordFields fields) => fields.Key.Value == 0 || Field("the key", fields.Key.Value, "none");

    private bool IsNamed(RecordFields fields, string? name) => name is not null || fields.Name.Value != 0 || fields.Key.Value != 0
        || Report(At(DiagnosticCodes.RecordName, "the record has neither a name nor a key"));

    private bool IsCode(VirtualAddress target, int length) => (target.Value != 0 && _code.Find(target, length) is not null)
        || Report(At(DiagnosticCodes.RecordTarget, "the target of the record lies outside the code") with
        {
            Found = $"{target}+{length}",
            Expected = _code.ToString(),
        });

    private static VirtualAddress? OrNone(VirtualAddress address) => address.Value == 0 ? null : address;

    private bool Field(string what, ulong found, string expected) =>
        Report(At(DiagnosticCodes.RecordField, $"{what} of the record is not one that can be") with
        {
            Found = string.Create(CultureInfo.InvariantCulture, $"{found}"),
            Expected = expected,
        });

    private static PatchDiagnostic At(string code, string message) => PatchDiagnostic.Error(code, message);

    private bool Report(PatchDiagnostic diagnostic)
    {
        _found.Add(diagnostic with { Source = _records.Name, SiteIndex = _index, Address = _address });
        return false;
    }
}
