namespace PvPatch.KernelTests.Harness;

/// <summary>Tests with a booted kernel: one after the other, with one fixture, so that one boot serves them all.</summary>
[CollectionDefinition(Name)]
#pragma warning disable CA1711 // "Collection" is what xunit calls this; it is no data structure.
public sealed class KernelCollection : ICollectionFixture<BootedKernelFixture>
#pragma warning restore CA1711
{
    public const string Name = "Booted kernels";
}
