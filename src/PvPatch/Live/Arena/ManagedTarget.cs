using System.Reflection;
using System.Runtime.InteropServices;

namespace PvPatch.Live;

/// <summary>
/// Addresses of C# methods that generated code may call. Such a method is static and marked <see cref="UnmanagedCallersOnlyAttribute"/>:
/// what its pointer names is a thunk that never moves, while the code of an ordinary method is replaced as it gets hot.
/// </summary>
/// <remarks>
/// What can't be checked is the host's to keep: the code was entered by an ordinary unmanaged call (not one marked
/// <see cref="SuppressGCTransitionAttribute"/>), and no exception leaves the method, for there is nothing above it that could be unwound.
/// </remarks>
public static unsafe class ManagedTarget
{
    /// <summary>The address of a method, after checking that it may be called from generated code.</summary>
    /// <param name="method">A static method marked <see cref="UnmanagedCallersOnlyAttribute"/>.</param>
    /// <returns>Its run address, for <see cref="Mechanisms.Operation.Call"/>.</returns>
    /// <exception cref="PatchException">The method is not one generated code may call (PV8029).</exception>
    public static VirtualAddress Of(MethodInfo method)
    {
        ArgumentNullException.ThrowIfNull(method);
        string? wrong = !method.IsStatic ? "it is not static"
            : method.GetCustomAttribute<UnmanagedCallersOnlyAttribute>() is null ? "it is not marked UnmanagedCallersOnly"
            : method.ContainsGenericParameters ? "it is generic"
            : null;
        return wrong is null
            ? (ulong)method.MethodHandle.GetFunctionPointer()
            : throw new PatchException(PatchDiagnostic.Error(
                DiagnosticCodes.TargetNotExecutable, $"generated code can't call {method.DeclaringType?.Name}.{method.Name}: {wrong}"));
    }

    /// <summary>
    /// The address in a function pointer: <c>ManagedTarget.Of((delegate* unmanaged&lt;uint, uint&gt;)&amp;Load)</c>. The cast is what
    /// checks it.
    /// </summary>
    /// <param name="function">A pointer to an <see cref="UnmanagedCallersOnlyAttribute"/> method or to native code.</param>
    /// <returns>Its run address.</returns>
    public static VirtualAddress Of(void* function) => (ulong)function;
}
