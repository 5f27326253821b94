using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Memory;

public sealed class DumpBadInputTests
{
    private static readonly byte[] s_kdump = new TestKdump().Raw(1, new byte[4096]).Build();

    public static TheoryData<string, string, byte[]> Refused => new()
    {
        { "PV6150", "shorter than its headers", s_kdump[..8191] },
        { "PV6150", "of a later version", new TestKdump { Version = 7 }.Raw(1, new byte[4096]).Build() },
        { "PV6150", "of a negative version", s_kdump.With32(8, uint.MaxValue) },
        { "PV6150", "of another machine", new TestKdump { Machine = "aarch64" }.Raw(1, new byte[4096]).Build() },
        { "PV6150", "of larger blocks", s_kdump.With32(428, 65536) },
        { "PV6151", "without pages", s_kdump.With64(4096 + 96, 0) },
        { "PV6151", "of more pages than can be", s_kdump.With64(4096 + 96, ulong.MaxValue) },
        { "PV6151", "of more pages than its bitmap has", s_kdump.With64(4096 + 96, 2 * 32768 + 1) },
        { "PV6151", "with a bitmap behind the file", s_kdump.With32(436, 0xffffffff) },
        { "PV6151", "with a sub header behind the file", s_kdump.With32(432, 0xffffffff) },
        { "PV6152", "one of several", new TestKdump { Split = 1 }.Raw(1, new byte[4096]).Build() },
        { "PV6153", "packed with lzo", new TestKdump { Status = 2 }.Raw(1, new byte[4096]).Build() },
        { "PV6124", "whose bitmap is empty", new TestKdump { Frames = 100 }.Build() },
        { "PV6124", "that ends before its descriptors", s_kdump[..(4 * 4096)] },
        { "PV6124", "of LiME without memory", new TestLime().Range(0x1000, [1]).Build()[..32] },
        { "PV6155", "of LiME of another version", new TestLime().Range(0x1000, [1], version: 3).Build() },
        { "PV6155", "of LiME that ends before it starts", new TestLime().Range(0x1000, [1], 0xfff).Build() },
        { "PV6121", "of AVML", new TestLime().Range(0x1000, [1], version: 2).Build() },
        { "PV6121", "of AVML behind LiME", new TestLime().Range(0x1000, [1]).Range(0x2000, [1], version: 2).Build() },
        { "PV6156", "flattened, header only", new TestFlattened().Build()[..24] },
        { "PV6156", "flattened, of another type", new TestFlattened(type: 2).End() },
        { "PV6156", "flattened, of another version", new TestFlattened(version: 2).End() },
        { "PV6156", "flattened, negative offset", new TestFlattened().Record(-2, [1]).End() },
        { "PV6156", "flattened, negative size", new TestFlattened().Record(0, [1], -1).End() },
        { "PV6156", "flattened, over the end of numbers", new TestFlattened().Record(long.MaxValue - 1, [1, 2]).End() },
        { "PV6156", "flattened, zeros without end", [.. new TestFlattened().Build(), .. new byte[1 << 20]] },
        { "PV6124", "flattened, nothing", new TestFlattened().End() },
        { "PV6121", "flattened twice", TestFlattened.Of(TestFlattened.Of(s_kdump)) },
        { "PV6121", "flattened, not a dump", TestFlattened.Of([.. "a text"u8]) },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void Damaged_dumps_are_refused_with_a_reason(string code, string what, byte[] bytes)
    {
        Assert.False(MemoryFile.TryOpen(new BytesMemorySource(bytes), "dump", null, out _, out PatchDiagnostic? error), what);

        Assert.Equal(code, error.Code);
        Assert.Equal("dump", error.Source);
        Assert.Equal(DiagnosticSeverity.Error, error.Severity);
        Assert.True(error.Help is not null, what);
    }

    public static TheoryData<string, string, byte[]> Named => new()
    {
        { "AVML", "avml-convert", new TestLime().Range(0x1000, [1], version: 2).Build() },
        { "VMware", ".vmem", [0xd0, 0xbe, 0xd2, 0xbe, .. new byte[60]] },
        { "VMware", ".vmem", [0xd2, 0xbe, 0xd2, 0xbe, .. new byte[60]] },
        { "QEMU migration stream", "dump-guest-memory", [.. "QEVM\0\0\0\u0003"u8, .. new byte[60]] },
        { "saved domain of libvirt", "virsh dump", [.. "LibvirtQemudSave"u8, .. new byte[60]] },
        { "64-bit Windows", "without -w", [.. "PAGEDU64"u8, .. new byte[60]] },
        { "packed with gzip", "gunzip", [0x1f, 0x8b, 8, .. new byte[60]] },
        { "packed with xz", "unxz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, .. new byte[60]] },
        { "packed with zstd", "unzstd", [0x28, 0xb5, 0x2f, 0xfd, .. new byte[60]] },
        { "xl dump-core", "/proc/kcore", XenCore() },
        { "no memory dump", "--base", new byte[64] },
    };

    [Theory]
    [MemberData(nameof(Named))]
    public void Forms_that_are_not_read_are_named_with_a_way_to_one_that_is(string name, string help, byte[] bytes)
    {
        Assert.False(MemoryFile.TryOpen(new BytesMemorySource(bytes), "dump", null, out _, out PatchDiagnostic? error));

        Assert.Equal("PV6121", error.Code);
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
        Assert.Contains(help, error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void The_tool_s_lzo_error_says_how_to_pack_it_anew()
    {
        byte[] dump = new TestKdump { Status = 2 }.Raw(1, new byte[4096]).Build();
        Assert.False(MemoryFile.TryOpen(new BytesMemorySource(dump), "dump", null, out _, out PatchDiagnostic? error));
        Assert.Contains("makedumpfile -c", error.Help, StringComparison.Ordinal);
    }

    // Header, names of sections, two section headers: nothing, and the names.
    private static byte[] XenCore()
    {
        byte[] names = [.. "\0.shstrtab\0.note.Xen\0.xen_p2m\0.xen_pages\0"u8];
        byte[] core = new TestCore().Build()[..64].With16(56, 0).With64(40, 64).With16(58, 64).With16(60, 2).With16(62, 1);
        byte[] section = new byte[64].With32(4, 3).With64(24, 64 + 128).With64(32, (ulong)names.Length);
        return [.. core, .. new byte[64], .. section, .. names];
    }
}
