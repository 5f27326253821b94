using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Live;

/// <summary>Every image of a site that an executor can see while it is written, for every start, length and pair of bodies.</summary>
public sealed unsafe class ModelCheckTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Guarded_sites_are_old_new_or_guarded_at_every_moment(bool forwarding)
    {
        using var code = new LiveCode(atomic16: false, size: 8 << 20);
        int checkedImages = 0;
        foreach ((int start, int length) in Places(SiteClass.Guarded, atomic16: false))
        {
            CodeBlock block = code.EmitFunction(new SiteWish(0, length, Forwarding: forwarding, Start: start));
            LiveSite site = block[0];
            Assert.Equal(forwarding, site.HasForwarding);
            byte[][] bodies = Bodies(code, site);
            foreach (byte[] old in bodies)
            {
                foreach (byte[] @new in bodies)
                {
                    checkedImages += CheckGuarded(code, site, old, @new);
                }
            }
        }

        Assert.True(checkedImages > 1000);
    }

    [Theory]
    [InlineData(SiteClass.Atomic8)]
    [InlineData(SiteClass.Atomic16)]
    [InlineData(SiteClass.Line)]
    public void One_store_sites_change_nothing_around_them_and_one_aligned_piece(SiteClass kind)
    {
        using var code = new LiveCode(atomic16: kind == SiteClass.Atomic16, trustLines: kind == SiteClass.Line, size: 8 << 20);
        // Behind the line nothing can be touched; of an aligned 16 all that is read may be 16 bytes from the site's first on.
        using var memory = new GuardedMemory(kind == SiteClass.Atomic16 ? 128 : 64, toTheEnd: true);
        fixed (byte* line = memory.Memory.Span)
        {
            foreach ((int start, int length) in Places(kind, atomic16: kind == SiteClass.Atomic16, kind == SiteClass.Line))
            {
                Span<byte> all = memory.Memory.Span;
                Random.Shared.NextBytes(all);
                byte[] before = all.ToArray();
                byte[] @new = new byte[length];
                Random.Shared.NextBytes(@new);
                SiteBytes old = SiteBytes.From(all.Slice(start, length));
                Assert.True(ConcurrentStores.TryStore(line + start, kind, length, old, SiteBytes.From(@new)));
                Assert.Equal([.. before[..start], .. @new, .. before[(start + length)..]], all.ToArray());

                // Not what it was: nothing is written.
                Assert.False(ConcurrentStores.TryStore(line + start, kind, length, new SiteBytes(~old.Low, old.High), old));
                Assert.Equal([.. before[..start], .. @new, .. before[(start + length)..]], all.ToArray());
            }
        }
    }

    [Fact]
    public void The_guard_routine_writes_every_length_and_nothing_around_it()
    {
        using var code = new LiveCode();
        var routine = (delegate* unmanaged<GuardEntry*, long, int, void*, int>)code.Arena.Native.Guards.Value;
        Span<byte> bytes = stackalloc byte[32];
        for (int length = 3; length <= 15; length++)
        {
            bytes.Fill(0xaa);
            byte[] body = [.. Enumerable.Range(1, length).Select(static i => (byte)i)];
            fixed (byte* at = bytes)
            {
                GuardEntry entry = GuardEntry.Create(at + 8, length, SiteBytes.From(body), forward: 0);
                Assert.Equal([.. body[2..]], entry.Tail.ToArray());
                Assert.Equal(2, routine(&entry, 1, 2, null));
                Assert.Equal(3, routine(&entry, 1, 3, null));
            }

            Assert.Equal([.. Enumerable.Repeat((byte)0xaa, 8), .. body, .. Enumerable.Repeat((byte)0xaa, 24 - length)], bytes.ToArray());
        }
    }

    [Fact]
    public void Every_body_of_every_backend_is_one_instruction_and_a_call_returns_to_the_sites_end()
    {
        using var code = new LiveCode();
        for (int length = 6; length <= 15; length++)
        {
            LiveSite site = code.EmitFunction(new SiteWish(0, length, Start: 0))[0];
            foreach (byte[] body in Bodies(code, site))
            {
                Instruction instruction = Decode(body, site.Address.Value);
                Assert.Equal(length, instruction.Length);
            }
        }
    }

    private static int CheckGuarded(LiveCode code, LiveSite site, byte[] old, byte[] @new)
    {
        byte* at = code.Arena.Memory.WriteView(site.Address);
        var there = new Span<byte>(at, site.Budget);
        old.CopyTo(there);
        GuardEntry entry = GuardEntry.Create(at, site.Budget, SiteBytes.From(@new), site.Record.Forward);
        var routine = (delegate* unmanaged<GuardEntry*, long, int, void*, int>)code.Arena.Native.Guards.Value;
        int images = 0;

        // 1: the head alone changed, in one store inside an aligned 8.
        Assert.True(SiteRecord.Fits(site.Address, 2, 8));
        Assert.Equal(1, routine(&entry, 1, 1, null));
        Assert.Equal(old[2..], there[2..].ToArray());
        AssertGuard(site, there);

        // 2: the tail, byte by byte as seen from elsewhere. The guard hides it, and the head stays.
        for (int written = 0; written <= site.Budget - 2; written++)
        {
            byte[] image = [.. there[..2], .. @new[2..(2 + written)], .. old[(2 + written)..]];
            AssertGuard(site, image);
            images++;
        }

        Assert.Equal(2, routine(&entry, 1, 2, null));
        AssertGuard(site, there);
        Assert.Equal(@new[2..], there[2..].ToArray());

        // 3: the head.
        Assert.Equal(3, routine(&entry, 1, 3, null));
        Assert.Equal(@new, there.ToArray());
        return images + 3;
    }

    private static void AssertGuard(LiveSite site, ReadOnlySpan<byte> image)
    {
        Instruction guard = Decode(image.ToArray(), site.Address.Value);
        Assert.Equal((Code.Jmp_rel8_64, 2), (guard.Code, guard.Length));
        ulong target = site.HasForwarding ? site.Address.Value + 2 + (ulong)site.Record.Forward : site.Address.Value;
        Assert.Equal(target, guard.NearBranchTarget);
    }

    /// <summary>All the bodies a site can hold: as emitted and under each backend.</summary>
    private static byte[][] Bodies(LiveCode code, LiveSite site)
    {
        using LivePatcher patcher = code.Patcher();
        var bodies = new List<byte[]> { site.ToArray() };
        foreach (PvPatch.Mechanisms.Backend backend in (PvPatch.Mechanisms.Backend[])[code.Direct, code.Inlined, code.Outlined, code.Nops])
        {
            patcher.Switch([site], backend, LiveCode.Quiescent);
            bodies.Add(site.ToArray());
        }

        patcher.Revert([site], LiveCode.Quiescent);
        Assert.Equal(bodies[0], site.ToArray());
        Assert.Equal(5, bodies.Select(Convert.ToHexString).Distinct().Count());
        return [.. bodies];
    }

    private static IEnumerable<(int Start, int Length)> Places(SiteClass kind, bool atomic16, bool trust = false)
    {
        for (int start = 0; start < 64; start++)
        {
            for (int length = 6; length <= 15; length++)
            {
                if (SiteRecord.Classify((ulong)start, length, true, atomic16, trust) == kind)
                {
                    yield return (start, length);
                }
            }
        }
    }

    private static Instruction Decode(byte[] bytes, ulong address)
    {
        var decoder = Decoder.Create(64, bytes, address);
        Instruction instruction = decoder.Decode();
        Assert.False(instruction.IsInvalid);
        return instruction;
    }
}
