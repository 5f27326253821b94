using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>What every slot of a layout does under one hypervisor or host mode. Immutable; slots nothing was said of are missing.</summary>
public sealed class Backend
{
    private readonly Operation[] _operations;

    internal Backend(string name, OpsLayout layout, Operation[] operations)
    {
        Name = name;
        Layout = layout;
        _operations = operations;
        Operations = Array.AsReadOnly(operations);
    }

    /// <summary>The backend's name.</summary>
    public string Name { get; }

    /// <summary>The layout it is made for.</summary>
    public OpsLayout Layout { get; }

    /// <summary>The operations, by slot index.</summary>
    public IReadOnlyList<Operation> Operations { get; }

    /// <summary>The operation of a slot.</summary>
    /// <param name="slot">The slot's index.</param>
    /// <returns>The operation.</returns>
    public Operation this[int slot] => _operations[slot];

    /// <summary>The operation of a slot.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>The operation.</returns>
    /// <exception cref="PatchException">There is no such slot (PV2001).</exception>
    public Operation this[string slot] => _operations[Layout[slot].Index];

    /// <summary>Makes a backend.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="layout">The layout.</param>
    /// <param name="build">Says what slots do.</param>
    /// <returns>The backend.</returns>
    /// <exception cref="PatchException">A slot is unknown (PV2001).</exception>
    public static Backend Create(string name, OpsLayout layout, Action<BackendBuilder> build)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(build);
        var operations = new Operation[layout.Count];
        Array.Fill(operations, Operation.Missing);
        return Build(name, layout, operations, build);
    }

    /// <summary>Makes a backend that does what this one does, but for the slots <paramref name="build"/> speaks of.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="build">Says what is different.</param>
    /// <returns>The backend.</returns>
    /// <exception cref="PatchException">A slot is unknown (PV2001).</exception>
    public Backend Derive(string name, Action<BackendBuilder> build)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(build);
        return Build(name, Layout, (Operation[])_operations.Clone(), build);
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private static Backend Build(string name, OpsLayout layout, Operation[] operations, Action<BackendBuilder> build)
    {
        build(new BackendBuilder(layout, operations));
        return new Backend(name, layout, (Operation[])operations.Clone());
    }
}

/// <summary>Says what the slots of a backend do. A slot spoken of twice does what was said last.</summary>
public sealed class BackendBuilder
{
    private readonly Operation[] _operations;

    internal BackendBuilder(OpsLayout layout, Operation[] operations)
    {
        Layout = layout;
        _operations = operations;
    }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Gives a slot an operation.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="operation">What it does.</param>
    /// <returns>This builder.</returns>
    /// <exception cref="PatchException">There is no such slot (PV2001).</exception>
    public BackendBuilder Set(string slot, Operation operation)
    {
        ArgumentNullException.ThrowIfNull(operation);
        _operations[Layout[slot].Index] = operation;
        return this;
    }

    /// <summary>What a slot does so far.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>The operation.</returns>
    /// <exception cref="PatchException">There is no such slot (PV2001).</exception>
    public Operation Get(string slot) => _operations[Layout[slot].Index];

    /// <summary>A slot has no function: its sites trap.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Missing(string slot) => Set(slot, Operation.Missing);

    /// <summary>A slot does nothing.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Nop(string slot) => Set(slot, Operation.Nop);

    /// <summary>A slot gives back its first argument as 32 bits.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Identity32(string slot) => Set(slot, Operation.Identity32);

    /// <summary>A slot gives back its first argument as 64 bits.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Identity64(string slot) => Set(slot, Operation.Identity64);

    /// <summary>A slot calls a function.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="target">The function's run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <param name="destroys">What it may destroy; <see langword="null"/> for what the slot's convention says.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Call(string slot, VirtualAddress target, string? name = null, RegisterSet? destroys = null) =>
        Set(slot, Operation.Call(target, name, destroys));

    /// <summary>A slot jumps to a function.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="target">The function's run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Jump(string slot, VirtualAddress target, string? name = null) => Set(slot, Operation.Jump(target, name));

    /// <summary>A slot is a few instructions.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="write">Writes them; see <see cref="InlineBody.Create(Action{Assembler}, RegisterSet?)"/>.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Inline(string slot, Action<Assembler> write) => Set(slot, Operation.Inline(InlineBody.Create(write)));

    /// <summary>A slot is a few instructions, or a call of the function that does the same where they do not fit.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="write">Writes them; see <see cref="InlineBody.Create(Action{Assembler}, RegisterSet?)"/>.</param>
    /// <param name="target">The function's run address.</param>
    /// <param name="name">The function's name, for reports.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Inline(string slot, Action<Assembler> write, VirtualAddress target, string? name = null) =>
        Set(slot, Operation.Inline(InlineBody.Create(write)).WithTarget(target, name));

    /// <summary>Puts another function into a slot; see <see cref="Operation.Retarget"/>.</summary>
    /// <param name="slot">The slot's full name.</param>
    /// <param name="target">The function's run address.</param>
    /// <param name="name">Its name, for reports.</param>
    /// <returns>This builder.</returns>
    public BackendBuilder Retarget(string slot, VirtualAddress target, string? name = null) => Set(slot, Get(slot).Retarget(target, name));
}
