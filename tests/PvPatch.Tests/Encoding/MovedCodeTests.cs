using PvPatch.Machine;

namespace PvPatch.Tests.Encoding;

/// <summary>Code taken elsewhere: what leaves it goes on leading where it led.</summary>
public sealed class MovedCodeTests
{
    // Expected bytes: GNU as, the same instructions at the two addresses with the same targets.
    [Theory]
    [InlineData("eb 00", "eb 00")] // jmp to its end: comes out behind, wherever that is
    [InlineData("eb fe", "eb fe")] // jmp to itself
    [InlineData("e8 fb 0f 00 00", "e8 fb 1f 00 00")] // call 0x3000
    [InlineData("48 8b 05 00 00 00 00", "48 8b 05 00 10 00 00")] // mov rax,[rip]: what lies behind the code stays where it is
    [InlineData("48 8b 05 f9 ff ff ff", "48 8b 05 f9 ff ff ff")] // mov rax,[rip-7]: its own bytes move along
    [InlineData("c7 05 f6 0f 00 00 01 00 00 00", "c7 05 f6 1f 00 00 01 00 00 00")] // mov dword [rip+..],1: the immediate lies between
    public void What_leaves_the_code_leads_where_it_led(string code, string moved)
    {
        Assert.True(MovedCode.TryMove(HexBytes.Parse(code), 0x2000, 0x1000, 64, out byte[]? bytes, out _));
        Assert.Equal(moved, HexBytes.Format(bytes));
    }

    [Theory]
    [InlineData("74 02")] // je behind the end
    [InlineData("e3 7f")] // jrcxz
    [InlineData("e2 80")] // loop
    public void A_short_branch_that_leaves_can_not_be_moved(string code)
    {
        Assert.False(MovedCode.TryMove(HexBytes.Parse(code), 0x2000, 0x1000, 64, out _, out int at));
        Assert.Equal(0, at);
    }
}
