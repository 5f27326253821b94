using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace PvGuest.Machine;

/// <summary>Registers of the emulated processor; the names of 64-bit mode stand for the 32-bit ones in 32-bit mode.</summary>
internal enum CpuRegister
{
    Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R11, Rip, Flags, Cr2, Cr3, GsBase,
}

/// <summary>Why the processor stopped.</summary>
internal enum CpuStop
{
    /// <summary><see cref="ICpuEvents.BeforeInstruction"/> asked for it; the instruction was not executed.</summary>
    Asked,

    /// <summary>An access could not be done; the instruction is at the instruction pointer still.</summary>
    Access,
}

/// <summary>What the processor tells while it runs.</summary>
internal interface ICpuEvents
{
    /// <summary>An instruction is about to be executed.</summary>
    /// <returns>Whether it may be.</returns>
    public bool BeforeInstruction(ulong address);

    /// <summary>Memory that is watched is about to be written.</summary>
    /// <returns>Whether it may be.</returns>
    public bool WatchedWrite(ulong address);

    /// <summary>An address is not mapped, or not for writing.</summary>
    /// <returns>Whether it is now.</returns>
    public bool Unmapped(ulong address, bool isWrite);
}

/// <summary>
/// An x86 processor: the Unicorn emulator (libunicorn.so.2, Debian package libunicorn2) behind the few calls the monitor needs. It knows
/// neither rings, paging, interrupts nor time here; those are the monitor's.
/// </summary>
internal sealed unsafe partial class EmulatedCpu : IDisposable
{
    public const string Library = "libunicorn.so.2";
    public const int PageSize = 0x1000;
    private const int ArchitectureX86 = 4;
    private const int Mode32 = 1 << 2;
    private const int Mode64 = 1 << 3;
    private const uint Read = 1;
    private const uint All = 7;
    private const int HookCode = 1 << 2;
    private const int HookMemWrite = 1 << 11;

    // Not mapped: read 16, write 32, fetch 64; not allowed: read 128, write 256, fetch 512.
    private const int HookMemInvalid = 16 | 32 | 64 | 128 | 256 | 512;
    private const int AccessWriteUnmapped = 20;
    private const int AccessWriteProtected = 22; // what is no write is between and above them: read, fetch

    // uc_err numbers of accesses that could not be done: unmapped 6 to 8, protected 12 to 14.
    private static readonly int[] s_accessErrors = [6, 7, 8, 12, 13, 14];

    // uc_x86_reg numbers, in the order of CpuRegister: part of the library's binary interface.
    private static readonly int[] s_registers64 = [35, 38, 40, 37, 44, 36, 43, 39, 109, 41, 25, 52, 53, 251];
    private static readonly int[] s_registers32 = [19, 22, 24, 21, 30, 20, 29, 23, -1, 26, 25, 52, 53, -1];

    private readonly int[] _registers;
    private readonly GCHandle _self;
    private readonly ICpuEvents _events;
    private nint _engine;
    private Exception? _thrown; // on its way through the emulator's own code

    /// <summary>Makes a processor without memory.</summary>
    public EmulatedCpu(int bitness, ICpuEvents events)
    {
        _events = events;
        _registers = bitness == 64 ? s_registers64 : s_registers32;
        Check(Open(ArchitectureX86, bitness == 64 ? Mode64 : Mode32, out _engine), "open");
        _self = GCHandle.Alloc(this);
        delegate* unmanaged[Cdecl]<nint, ulong, uint, nint, void> code = &OnCode;
        delegate* unmanaged[Cdecl]<nint, int, ulong, int, long, nint, byte> invalid = &OnInvalid;
        Hook(HookCode, code, 1, 0);
        Hook(HookMemInvalid, invalid, 1, 0);
    }

    /// <summary>Whether the library is there.</summary>
    public static bool IsAvailable { get; } = OperatingSystem.IsLinux() && NativeLibrary.TryLoad(Library, out _);

    public ulong this[CpuRegister register]
    {
        get
        {
            ulong value = 0;
            Check(ReadRegister(_engine, _registers[(int)register], &value), $"read {register}");
            return value;
        }
        set => Check(WriteRegister(_engine, _registers[(int)register], &value), $"write {register}");
    }

    /// <summary>Maps memory of the host.</summary>
    /// <returns>Whether it could be.</returns>
    public bool TryMap(ulong address, byte* memory, int length, bool isWritable) =>
        MapMemory(_engine, address, (nuint)length, isWritable ? All : Read, memory) == 0;

    /// <summary>Takes a page's mapping away.</summary>
    public void Unmap(ulong address) => Check(UnmapMemory(_engine, address, PageSize), $"unmap 0x{address:x}");

    /// <summary>Has <see cref="ICpuEvents.WatchedWrite"/> told of stores to a range.</summary>
    public void Watch(ulong first, ulong last)
    {
        delegate* unmanaged[Cdecl]<nint, int, ulong, int, long, nint, void> write = &OnWrite;
        Hook(HookMemWrite, write, first, last);
    }

    /// <summary>Runs from the instruction pointer on until something has to be done.</summary>
    /// <exception cref="InvalidOperationException">The processor failed otherwise (an instruction that is none, for example).</exception>
    public CpuStop Run()
    {
        int error = Start(_engine, this[CpuRegister.Rip], ulong.MaxValue, 0, 0);
        if (_thrown is Exception thrown)
        {
            throw thrown;
        }

        if (s_accessErrors.Contains(error))
        {
            return CpuStop.Access;
        }

        Check(error, $"run, at 0x{this[CpuRegister.Rip]:x}");
        return CpuStop.Asked;
    }

    public void Dispose()
    {
        if (_engine != 0)
        {
            _ = Close(_engine);
            _engine = 0;
            _self.Free();
        }
    }

    private static EmulatedCpu Of(nint user) => Unsafe.As<EmulatedCpu>(GCHandle.FromIntPtr(user).Target!);

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnCode(nint engine, ulong address, uint size, nint user)
    {
        EmulatedCpu cpu = Of(user);
        bool goesOn = false;
        try
        {
            goesOn = cpu._events.BeforeInstruction(address);
        }
        catch (Exception e) when (e is GuestException or PvPatch.PatchException)
        {
            cpu._thrown = e;
        }

        if (!goesOn)
        {
            _ = Stop(engine);
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnWrite(nint engine, int type, ulong address, int size, long value, nint user)
    {
        if (!Of(user)._events.WatchedWrite(address))
        {
            _ = Stop(engine);
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static byte OnInvalid(nint engine, int type, ulong address, int size, long value, nint user) =>
        (byte)(Of(user)._events.Unmapped(address, type is AccessWriteUnmapped or AccessWriteProtected) ? 1 : 0);

    private void Hook(int kind, void* function, ulong first, ulong last) =>
        Check(AddHook(_engine, out _, kind, function, GCHandle.ToIntPtr(_self), first, last), "hook");

    private static void Check(int error, string doing)
    {
        if (error != 0)
        {
            throw new InvalidOperationException($"{doing}: {Marshal.PtrToStringUTF8(ErrorText(error))}");
        }
    }

    [LibraryImport(Library, EntryPoint = "uc_open")]
    private static partial int Open(int architecture, int mode, out nint engine);

    [LibraryImport(Library, EntryPoint = "uc_close")]
    private static partial int Close(nint engine);

    [LibraryImport(Library, EntryPoint = "uc_strerror")]
    private static partial nint ErrorText(int error);

    [LibraryImport(Library, EntryPoint = "uc_mem_map_ptr")]
    private static partial int MapMemory(nint engine, ulong address, nuint length, uint protection, byte* memory);

    [LibraryImport(Library, EntryPoint = "uc_mem_unmap")]
    private static partial int UnmapMemory(nint engine, ulong address, nuint length);

    [LibraryImport(Library, EntryPoint = "uc_reg_write")]
    private static partial int WriteRegister(nint engine, int register, ulong* value);

    [LibraryImport(Library, EntryPoint = "uc_reg_read")]
    private static partial int ReadRegister(nint engine, int register, ulong* value);

    [LibraryImport(Library, EntryPoint = "uc_hook_add")]
    private static partial int AddHook(nint engine, out nuint hook, int kind, void* function, nint user, ulong first, ulong last);

    [LibraryImport(Library, EntryPoint = "uc_emu_start")]
    private static partial int Start(nint engine, ulong from, ulong until, ulong microseconds, nuint mostInstructions);

    [LibraryImport(Library, EntryPoint = "uc_emu_stop")]
    private static partial int Stop(nint engine);
}
