using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Keys, in short.</content>
public sealed partial class LivePatcher
{
    /// <summary>Enables a key once more; see <see cref="LiveChanges.Enable"/>, or throws.</summary>
    /// <param name="key">A key of this arena.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Enable(StaticKey key, SwitchOptions? options = null) =>
        TryEnable(key, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Enables a key once more; see <see cref="LiveChanges.Enable"/>.</summary>
    /// <param name="key">A key of this arena.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryEnable(StaticKey key, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Enable(key), options, out result);

    /// <summary>Disables a key once; see <see cref="LiveChanges.Disable"/>, or throws.</summary>
    /// <param name="key">A key of this arena.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Disable(StaticKey key, SwitchOptions? options = null) =>
        TryDisable(key, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Disables a key once; see <see cref="LiveChanges.Disable"/>.</summary>
    /// <param name="key">A key of this arena.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryDisable(StaticKey key, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Disable(key), options, out result);
}
