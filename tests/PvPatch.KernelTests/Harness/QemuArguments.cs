namespace PvPatch.KernelTests.Harness;

/// <summary>QEMU's command line for a machine.</summary>
internal static class QemuArguments
{
    /// <summary>Files of the machine's directory: sockets, and what the guest sends over its second serial port.</summary>
    public const string Console = "console";
    public const string Qmp = "qmp";
    public const string Gdb = "gdb";
    public const string Report = "report.gz";

    /// <summary>What Xen takes for itself: tables of all memory, its heap, and the boot modules until dom0 has them.</summary>
    private const int XenMemoryMiB = 512;

    public static string[] Build(string kernel, string initramfs, string directory, MachineOptions options)
    {
        string place = Escape(directory);
        return
        [
            "-M", "q35", "-accel", "tcg,thread=single", "-display", "none", "-nodefaults", "-no-reboot", "-S",
            .. options.Xen is { } xen ? UnderXen(kernel, initramfs, directory, options, xen) : OnTheMachine(kernel, initramfs, options),
            "-chardev", $"socket,id=s0,path={place}/{Console},server=on,wait=off", "-device", "isa-serial,chardev=s0",
            "-chardev", $"file,id=s1,path={place}/{Report}", "-device", "isa-serial,chardev=s1",
            "-qmp", $"unix:{place}/{Qmp},server=on,wait=off",
            .. options.VmCoreInfo ? (ReadOnlySpan<string>)["-device", "vmcoreinfo"] : [],
            .. options.AnswersLeaves ? ["-gdb", $"unix:{place}/{Gdb},server=on,wait=off"] : Array.Empty<string>(),
        ];
    }

    private static string[] OnTheMachine(string kernel, string initramfs, MachineOptions options)
    {
        string console = options.Kaslr ? "console=ttyS0" : "console=ttyS0 nokaslr";
        return
        [
            "-cpu", options.Cpu, "-m", $"{options.MemoryMiB}", "-smp", options.Processors,
            "-kernel", kernel, "-initrd", initramfs, "-append", KernelCommandLine(console, options),
        ];
    }

    private static string[] UnderXen(
        string kernel, string initramfs, string directory, MachineOptions options, XenOptions xen)
    {
        // QEMU takes a module's file name to end at the first blank, so it gets one of which that is sure.
        string link = Path.Combine(directory, "dom0");
        File.CreateSymbolicLink(link, kernel);
        string modules = $"{Escape($"{link} {KernelCommandLine("console=hvc0 earlyprintk=xen nokaslr", options)}")},{Escape(initramfs)}";

        // Without "noreboot" a crash of dom0 or Xen is a reboot after seconds, and with -no-reboot the end of QEMU.
        string commandLine =
            $"console=com1 com1=115200,8n1 loglvl=warning no-real-mode dom0_max_vcpus={xen.Dom0Processors} "
            + $"dom0_mem={options.MemoryMiB}M,max:{options.MemoryMiB}M {xen.Append}";
        return
        [
            // -smap: the translator's IRET from ring 3 reads the stack as the supervisor does, which SMAP forbids;
            // a PV kernel returns to itself that way.
            "-cpu", $"{options.Cpu},-smap", "-m", $"{options.MemoryMiB + XenMemoryMiB}", "-smp", $"{xen.Dom0Processors}",
            "-kernel", XenHypervisor.Fetch(xen.Package).ImagePath, "-initrd", modules, "-append", commandLine.Trim(),
        ];
    }

    private static string KernelCommandLine(string console, MachineOptions options)
    {
        // noirqdebug: PREEMPT_RT kernels otherwise take the busy second port for a stuck interrupt and switch it off.
        // no_timer_check: the kernel counts timer interrupts against a busy loop; on a loaded host the emulated timer loses and the kernel
        // panics.
        return $"{console} noirqdebug no_timer_check panic=-1 oops=panic {options.Append}".Trim();
    }

    private static string Escape(string value)
    {
        // In QEMU's option lists a comma ends the value; a doubled one is a comma.
        return value.Replace(",", ",,", StringComparison.Ordinal);
    }
}
