using System.Runtime.InteropServices;

namespace PvPatch.Tests.Support;

/// <summary>Registers of the emulated processor; the names of 64-bit mode stand for the 32-bit ones in 32-bit mode.</summary>
internal enum CpuRegister
{
    Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15, Rip, Flags, Cr0, Cr2, Cr3, Cr4,
}

/// <summary>
/// An x86 processor in ring 0, for bodies a user-mode process cannot run: the Unicorn emulator of the distribution
/// (libunicorn.so.2, Debian package libunicorn2) behind the few calls the tests need.
/// </summary>
internal sealed unsafe partial class UnicornCpu : IDisposable
{
    /// <summary>IF, the interrupt flag in <see cref="CpuRegister.Flags"/>.</summary>
    public const ulong InterruptFlag = 0x200;

    private const string Library = "libunicorn.so.2";
    private const int ArchitectureX86 = 4;
    private const int Mode32 = 1 << 2;
    private const int Mode64 = 1 << 3;
    private const uint ProtectionAll = 7;
    private const ulong PageSize = 0x1000;

    // uc_x86_reg numbers, in the order of CpuRegister: part of the library's binary interface.
    private static readonly int[] s_registers64 =
        [35, 38, 40, 37, 44, 36, 43, 39, 106, 107, 108, 109, 110, 111, 112, 113, 41, 25, 50, 52, 53, 54];

    private static readonly int[] s_registers32 =
        [19, 22, 24, 21, 30, 20, 29, 23, -1, -1, -1, -1, -1, -1, -1, -1, 26, 25, 50, 52, 53, 54];

    private readonly int _bitness;
    private nint _engine;

    /// <summary>Makes a machine without memory.</summary>
    public UnicornCpu(int bitness)
    {
        _bitness = bitness;
        Check(Open(ArchitectureX86, bitness == 64 ? Mode64 : Mode32, out _engine), "open");
    }

    public static bool IsAvailable { get; } = OperatingSystem.IsLinux() && NativeLibrary.TryLoad(Library, out _);

    /// <summary>Skips the test where the library is not there, or fails it: see <see cref="Require"/>.</summary>
    public static void RequireLibrary() => Require.Tool(IsAvailable, Library, "libunicorn2");

    public ulong this[CpuRegister register]
    {
        get
        {
            ulong value = 0;
            Check(ReadRegister(_engine, Number(register), &value), $"read {register}");
            return value;
        }
        set => Check(WriteRegister(_engine, Number(register), &value), $"write {register}");
    }

    /// <summary>Adds memory that can be read, written and executed; grown to whole pages.</summary>
    public void Map(ulong address, int length)
    {
        ulong start = address & ~(PageSize - 1);
        ulong end = (address + (ulong)length + PageSize - 1) & ~(PageSize - 1);
        Check(MapMemory(_engine, start, (nuint)(end - start), ProtectionAll), $"map 0x{start:x}");
    }

    public void Write(ulong address, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* source = bytes)
        {
            Check(WriteMemory(_engine, address, source, (nuint)bytes.Length), $"write to 0x{address:x}");
        }
    }

    public byte[] Read(ulong address, int length)
    {
        byte[] bytes = new byte[length];
        fixed (byte* target = bytes)
        {
            Check(ReadMemory(_engine, address, target, (nuint)length), $"read 0x{address:x}");
        }

        return bytes;
    }

    /// <summary>Runs from an address until the instruction pointer reaches another; at most so many instructions.</summary>
    /// <exception cref="InvalidOperationException">
    /// A fault (with the emulator's text), or <paramref name="until"/> was not reached.
    /// </exception>
    public void Run(ulong from, ulong until, int mostInstructions = 1000)
    {
        Check(Start(_engine, from, until, 0, (nuint)mostInstructions), $"run from 0x{from:x}");
        ulong reached = this[CpuRegister.Rip];
        if (reached != until)
        {
            throw new InvalidOperationException($"the run from 0x{from:x} stands at 0x{reached:x}, not at 0x{until:x}");
        }
    }

    public void Dispose()
    {
        if (_engine != 0)
        {
            _ = Close(_engine);
            _engine = 0;
        }
    }

    private int Number(CpuRegister register)
    {
        int number = (_bitness == 64 ? s_registers64 : s_registers32)[(int)register];
        return number >= 0 ? number : throw new ArgumentException($"{register} does not exist in 32-bit mode", nameof(register));
    }

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

    [LibraryImport(Library, EntryPoint = "uc_mem_map")]
    private static partial int MapMemory(nint engine, ulong address, nuint length, uint protection);

    [LibraryImport(Library, EntryPoint = "uc_mem_write")]
    private static partial int WriteMemory(nint engine, ulong address, byte* bytes, nuint length);

    [LibraryImport(Library, EntryPoint = "uc_mem_read")]
    private static partial int ReadMemory(nint engine, ulong address, byte* bytes, nuint length);

    [LibraryImport(Library, EntryPoint = "uc_reg_write")]
    private static partial int WriteRegister(nint engine, int register, ulong* value);

    [LibraryImport(Library, EntryPoint = "uc_reg_read")]
    private static partial int ReadRegister(nint engine, int register, ulong* value);

    [LibraryImport(Library, EntryPoint = "uc_emu_start")]
    private static partial int Start(nint engine, ulong from, ulong until, ulong microseconds, nuint mostInstructions);
}
