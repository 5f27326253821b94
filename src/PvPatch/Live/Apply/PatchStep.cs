namespace PvPatch.Live;

/// <summary>The steps of a batch at which a test may make it fail.</summary>
internal enum PatchStep
{
    /// <summary>Everything is decided, nothing written.</summary>
    Planned,

    /// <summary>Executors are forwarded around bodies of several instructions.</summary>
    Draining,

    /// <summary>A slot is about to be stored.</summary>
    Slot,

    /// <summary>A site is about to be changed by one store.</summary>
    Store,

    /// <summary>Some sites are about to be guarded.</summary>
    Guard,

    /// <summary>Everything is stored, the last barrier not yet run.</summary>
    Barrier,

    /// <summary>All is done but for the records.</summary>
    Publish,
}
