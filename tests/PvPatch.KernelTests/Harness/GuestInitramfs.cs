namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The guest's whole user space: busybox and a script that reports over the second serial port, says so on the
/// console, and sleeps.
/// </summary>
internal static class GuestInitramfs
{
    public const string HostBusybox = "/bin/busybox";

    /// <summary>Printed when user space runs and the report is written.</summary>
    public const string ReadyMark = "@@READY";

    // Under Xen the kernel's page tables are on a processor only while it runs the kernel, so in place of sleeping the
    // first process makes the kernel clear memory for good.
    // The report goes out compressed: a serial port of TCG takes about a microsecond a byte (ten under Xen, which
    // traps every access) and kallsyms is 10 MB.
    private const string Script = """
        #!/bin/busybox sh
        B=/bin/busybox
        $B mount -t proc proc /proc
        $B mount -t sysfs sysfs /sys
        $B mount -t devtmpfs dev /dev
        echo 0 > /proc/sys/kernel/kptr_restrict
        echo 1 > /proc/sys/kernel/printk
        for m in /modules/*.ko; do [ ! -e "$m" ] || $B insmod "$m" || echo "insmod $m failed"; done
        $B stty -F /dev/ttyS1 raw -opost
        {
            echo @@cpuinfo; $B cat /proc/cpuinfo
            echo @@cmdline; $B cat /proc/cmdline
            echo @@iomem; $B cat /proc/iomem
            echo @@dmesg; $B dmesg
            [ ! -e /program ] || { echo @@program; $B mkdir -p /tmp; $B --install -s /bin; PATH=/usr/bin:/bin $B sh /program 2>&1; }
            [ ! -d /modules ] || { echo @@modules; $B grep -r . /sys/module/*/sections; }
            [ -e /symbols-known ] || { echo @@kallsyms; $B cat /proc/kallsyms; }
            echo @@end
        } | $B gzip -c > /dev/ttyS1
        echo @@READY
        if [ "$($B cat /sys/hypervisor/type 2>/dev/null)" = xen ]; then exec $B dd if=/dev/zero of=/dev/null bs=1M; fi
        while :; do $B sleep 1000; done

        """;

    private static readonly string[] s_directories = ["bin", "dev", "proc", "sys"];

    /// <summary>Writes the archive.</summary>
    /// <param name="path">The file to write.</param>
    /// <param name="busybox">A static busybox for the guest.</param>
    /// <param name="symbolsKnown">Whether to leave kallsyms out of the report: under Xen it takes half a minute.</param>
    /// <param name="modules">Modules (.ko) to load, in this order.</param>
    /// <param name="program">What to run.</param>
    public static void Write(string path, string busybox, bool symbolsKnown, IReadOnlyList<string> modules, GuestProgram? program = null)
    {
        using FileStream file = File.Create(path);
        CpioArchive archive = new(file);
        foreach (string directory in s_directories)
        {
            archive.AddDirectory(directory);
        }

        // Opened by the kernel for the first process, before devtmpfs is mounted.
        archive.AddCharacterDevice("dev/console", 5, 1);
        archive.AddExecutable("bin/busybox", File.ReadAllBytes(busybox));
        if (symbolsKnown)
        {
            archive.AddDirectory("symbols-known");
        }

        if (modules.Count > 0)
        {
            archive.AddDirectory("modules");
        }

        for (int i = 0; i < modules.Count; i++)
        {
            // The shell sorts them by name.
            archive.AddExecutable($"modules/{i:d2}.ko", File.ReadAllBytes(modules[i]));
        }

        program?.Write(archive, s_directories);
        archive.AddExecutable("init", System.Text.Encoding.ASCII.GetBytes(Script.ReplaceLineEndings("\n")));
        archive.Finish();
    }
}
