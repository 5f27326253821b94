namespace PvPatch.Plans;

/// <summary>What applying or reverting a plan did.</summary>
/// <param name="Written">How many sites were written.</param>
/// <param name="AlreadyThere">How many held the wanted bytes before.</param>
public readonly record struct ApplyResult(int Written, int AlreadyThere);
