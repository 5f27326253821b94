namespace PvPatch.Linux.Tests.Support;

/// <summary>Writes BTF data: types are numbered from 1 in the order they are added, so loops can be written by number.</summary>
internal sealed class TestBtf
{
    public const int HeaderSize = 24;

    private readonly List<byte> _types = [];
    private readonly List<byte> _strings = [0];
    private int _count;

    /// <summary>
    /// A member of a struct: name, type number, offset in bits with the bit-field size above it where the kind flag is set.
    /// </summary>
    public readonly record struct Member(string Name, int Type, int BitOffset);

    public int Int(string name, int size)
    {
        Header(name, 1, 0, (uint)size);
        return End(Word((uint)(size * 8)));
    }

    public int Pointer(int type) => End(Header("", 2, 0, (uint)type));

    public int Array(int type, int index, uint count)
    {
        Header("", 3, 0, 0);
        Word((uint)type);
        Word((uint)index);
        return End(Word(count));
    }

    public int Struct(string name, int size, params Member[] members) => Composite(4, name, size, false, members);

    public int Union(string name, int size, params Member[] members) => Composite(5, name, size, false, members);

    public int StructWithBitFields(string name, int size, params Member[] members) => Composite(4, name, size, true, members);

    public int Typedef(string name, int type) => End(Header(name, 8, 0, (uint)type));

    public int Volatile(int type) => End(Header("", 9, 0, (uint)type));

    public int Const(int type) => End(Header("", 10, 0, (uint)type));

    /// <summary>A type of any kind with what follows it.</summary>
    public int Other(int kind, int count, string name, uint sizeOrType, params byte[] trailing)
    {
        Header(name, kind, count, sizeOrType);
        _types.AddRange(trailing);
        return ++_count;
    }

    public byte[] Build()
    {
        byte[] header = [0x9f, 0xeb, 1, 0, HeaderSize, 0, 0, 0];
        return
        [
            .. header, .. U32(0), .. U32((uint)_types.Count), .. U32((uint)_types.Count), .. U32((uint)_strings.Count), .. _types,
            .. _strings,
        ];
    }

    private int Composite(int kind, string name, int size, bool kindFlag, Member[] members)
    {
        Header(name, kind, members.Length, (uint)size, kindFlag);
        foreach (Member member in members)
        {
            Word(String(member.Name));
            Word((uint)member.Type);
            Word((uint)member.BitOffset);
        }

        return ++_count;
    }

    private TestBtf Header(string name, int kind, int count, uint sizeOrType, bool kindFlag = false)
    {
        Word(String(name));
        Word(((uint)kind << 24) | (uint)count | (kindFlag ? 0x80000000 : 0));
        return Word(sizeOrType);
    }

    private TestBtf Word(uint value)
    {
        _types.AddRange(U32(value));
        return this;
    }

    private int End(TestBtf written) => ++written._count;

    private uint String(string text)
    {
        if (text.Length == 0)
        {
            return 0;
        }

        uint offset = (uint)_strings.Count;
        _strings.AddRange(System.Text.Encoding.UTF8.GetBytes(text + "\0"));
        return offset;
    }

    private static byte[] U32(uint value) => BitConverter.GetBytes(value);
}
