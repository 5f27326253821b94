using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Mechanisms;

/// <summary>A layout and the backends made for it, by name. Refuses a name twice; not safe for several writers at once.</summary>
public sealed class OpsRegistry
{
    private readonly Dictionary<string, Backend> _backends = new(StringComparer.Ordinal);
    private readonly List<Backend> _order = [];

    /// <summary>Makes a registry without backends.</summary>
    /// <param name="layout">The layout all of them share.</param>
    public OpsRegistry(OpsLayout layout)
    {
        ArgumentNullException.ThrowIfNull(layout);
        Layout = layout;
    }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>The backends in the order they were added.</summary>
    public IReadOnlyList<Backend> Backends => _order.AsReadOnly();

    /// <summary>The backend of a name.</summary>
    /// <param name="name">The name.</param>
    /// <returns>The backend.</returns>
    /// <exception cref="PatchException">There is none (PV2002); the diagnostic suggests the nearest name.</exception>
    public Backend this[string name] =>
        TryGet(name, out Backend? backend, out PatchDiagnostic? error) ? backend : throw new PatchException(error);

    /// <summary>Adds a backend.</summary>
    /// <param name="backend">The backend, made for this layout.</param>
    /// <returns>The same backend.</returns>
    /// <exception cref="PatchException">It was made for another layout (PV2004), or its name is taken (PV2003).</exception>
    public Backend Add(Backend backend)
    {
        ArgumentNullException.ThrowIfNull(backend);
        if (!ReferenceEquals(backend.Layout, Layout))
        {
            throw new PatchException(
                PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the backend \"{backend.Name}\" was made for another layout") with
                {
                    Found = backend.Layout.Name,
                    Expected = Layout.Name,
                });
        }

        if (!_backends.TryAdd(backend.Name, backend))
        {
            throw new PatchException(
                PatchDiagnostic.Error(DiagnosticCodes.DuplicateName, $"there is a backend \"{backend.Name}\" already"));
        }

        _order.Add(backend);
        return backend;
    }

    /// <summary>Makes a backend and adds it.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="build">Says what its slots do.</param>
    /// <param name="inherits">The backend whose operations it starts from, where there is one.</param>
    /// <returns>The backend.</returns>
    /// <exception cref="PatchException">
    /// The name is taken (PV2003), a slot (PV2001) or the inherited backend (PV2002) is unknown.
    /// </exception>
    public Backend Add(string name, Action<BackendBuilder> build, string? inherits = null) =>
        Add(inherits is null ? Backend.Create(name, Layout, build) : this[inherits].Derive(name, build));

    /// <summary>Finds a backend, or says which name was meant.</summary>
    /// <param name="name">The name.</param>
    /// <param name="backend">The backend.</param>
    /// <param name="error">PV2002 with the nearest name.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryGet(string name, [NotNullWhen(true)] out Backend? backend, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(name);
        error = null;
        if (_backends.TryGetValue(name, out backend))
        {
            return true;
        }

        error = PatchDiagnostic.Error(DiagnosticCodes.UnknownBackend, $"there is no backend \"{name}\"") with
        {
            Help = NameSuggestion.Help(name, _backends.Keys),
        };
        return false;
    }
}
