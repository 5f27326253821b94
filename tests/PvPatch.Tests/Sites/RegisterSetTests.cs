using PvPatch.Machine;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Sites;

public sealed class RegisterSetTests
{
    [Fact]
    public void Every_set_is_read_back_from_its_text_in_both_modes()
    {
        for (uint bits = 0; bits < 1 << 18; bits += 97)
        {
            RegisterSet set = RegisterSet.FromBits(bits);
            Assert.True(RegisterSet.TryParse(set.ToString(), out RegisterSet read));
            Assert.Equal(set, read);
            Assert.True(RegisterSet.TryParse(set.ToString(32), out read));
            Assert.Equal(set, read);
        }
    }

    [Theory]
    [InlineData("rax,eax", true, 1u)]
    [InlineData("EDI | r15", true, 0x8080u)]
    [InlineData("-", true, 0u)]
    [InlineData("none", true, 0u)]
    [InlineData("all", true, 0x3ffffu)]
    [InlineData("r16", false, 0u)]
    [InlineData("e8", false, 0u)]
    [InlineData("er8", false, 0u)]
    [InlineData("rax,?", false, 0u)]
    public void Lists_are_read_as_people_write_them(string text, bool known, uint bits)
    {
        Assert.Equal(known, RegisterSet.TryParse(text, out RegisterSet set));
        Assert.Equal(bits, set.Bits);
    }

    [Fact]
    public void Set_operations_are_those_of_bits()
    {
        var random = TestSeed.NewRandom();
        for (int i = 0; i < 1000; i++)
        {
            (uint a, uint b) = ((uint)random.Next(1 << 18), (uint)random.Next(1 << 18));
            (RegisterSet x, RegisterSet y) = (RegisterSet.FromBits(a), RegisterSet.FromBits(b));
            Assert.Equal(a | b, (x | y).Bits);
            Assert.Equal(a & b, (x & y).Bits);
            Assert.Equal(~a & 0x3ffff, (~x).Bits);
            Assert.Equal(a & ~b, x.Except(y).Bits);
            Assert.Equal((b & ~a) == 0, x.Contains(y));
            Assert.Equal(System.Numerics.BitOperations.PopCount(a), x.Count);
        }

        Assert.Equal(RegisterSet.All, RegisterSet.FromBits(uint.MaxValue));
        Assert.Throws<ArgumentOutOfRangeException>(() => RegisterSet.General(16));
    }
}
