using PvPatch.Machine;

namespace PvPatch.Tests.Encoding;

/// <summary>A template is assembled once; a host that asks for new ones for ever does not make the store grow for ever.</summary>
public sealed class TemplateStoreTests
{
    private const int Limit = 16384;

    [Fact]
    public void A_template_is_assembled_once_and_kept_until_the_store_is_full()
    {
        var store = new TemplateStore(64, NopStyle.P6);
        CodeTemplate first = store.Call(0x40_0000, 5);
        Assert.Same(first, store.Call(0x40_0000, 5));
        Assert.NotSame(first, store.Call(0x40_0000, 6));
        Assert.NotSame(first, store.Jump(0x40_0000, 5));
        for (uint i = 1; i < Limit / 2; i++)
        {
            store.Call(0x40_0000 + i, 5);
        }

        Assert.Same(first, store.Call(0x40_0000, 5));
        for (uint i = Limit / 2; i < Limit + 16; i++)
        {
            store.Call(0x40_0000 + i, 5);
        }

        CodeTemplate later = store.Call(0x40_0000, 5);
        Assert.NotSame(first, later);
        byte[] bytes = new byte[5];
        Assert.True(later.TryWrite(0x40_0000, bytes));
        Assert.Equal("e8 fb ff ff ff", HexBytes.Format(bytes)); // call of its own address: five back from its end
    }
}
