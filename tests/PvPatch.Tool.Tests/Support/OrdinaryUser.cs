using System.Runtime.InteropServices;
using PvPatch.Tests.Shared;

namespace PvPatch.Tool.Tests.Support;

/// <summary>What file modes forbid they forbid to ordinary users only; the superuser may do everything.</summary>
internal static partial class OrdinaryUser
{
    private const uint Nobody = 65534;

    /// <summary>Runs an action that opens files as a user without privileges, whoever runs the tests.</summary>
    public static void Run(Action action)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            action();
            return;
        }

        Requirement.That(OperatingSystem.IsLinux(), "a user without privileges must run this test");
        bool changed = false;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            // The user of file accesses is the thread's own, and its privileges over files go with it. The call gives the user before.
            _ = SetFileUser(Nobody);
            changed = SetFileUser(Nobody) == Nobody;
            failure = changed ? Record.Exception(action) : null;
        });
        thread.Start();
        thread.Join();
        Requirement.That(changed, "the user of file accesses cannot be changed");
        if (failure is not null)
        {
            throw new InvalidOperationException("as an ordinary user", failure);
        }
    }

    [LibraryImport("libc", EntryPoint = "setfsuid")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial uint SetFileUser(uint user);
}
