using System.Buffers.Binary;
using System.Numerics;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// The instructions that load a site's argument: 16 bytes for each site that has one. None of them changes a flag.
/// <code>
/// bf dd dd dd dd                    mov edi,imm32            a value below 2^32
/// 48 c7 c7 dd dd dd dd              mov rdi,simm32           one that is a negative number of 32 bits
/// 48 bf dd dd dd dd dd dd dd dd     mov rdi,imm64            any other
/// 48 8d 35 dd dd dd dd              lea rsi,[rip+site]       the site's own address
/// </code>
/// </summary>
internal readonly record struct ArgumentCode
{
    private const int AddressLength = 7;

    private readonly ulong _value;
    private readonly byte _register; // its number and one; 0 for none
    private readonly byte _addressRegister;

    public ArgumentCode(ulong value, RegisterSet register, RegisterSet addressRegister)
    {
        _value = value;
        _register = Number(register);
        _addressRegister = Number(addressRegister);
    }

    /// <summary>From the arena's start to the stub that goes on through the slot.</summary>
    public uint Stub { get; init; }

    /// <summary>Whether there is no argument.</summary>
    public bool IsNone => (_register | _addressRegister) == 0;

    /// <summary>What it loads.</summary>
    public RegisterSet Registers => Set(_register) | Set(_addressRegister);

    /// <summary>The argument as it was given, its registers named.</summary>
    public SiteArgument Argument => new(_register == 0 ? null : _value)
    {
        Register = _register == 0 ? null : Set(_register),
        AddressRegister = _addressRegister == 0 ? null : Set(_addressRegister),
    };

    /// <summary>Bytes of the instructions.</summary>
    public int Length => MoveLength + (_addressRegister == 0 ? 0 : AddressLength);

    private int MoveLength => _register == 0 ? 0
        : _value <= uint.MaxValue ? (_register > 8 ? 6 : 5)
        : (long)_value is < 0 and >= int.MinValue ? 7
        : 10;

    /// <summary>Writes the instructions.</summary>
    /// <param name="code">Their bytes.</param>
    /// <param name="address">Where they will run.</param>
    /// <param name="site">The site's address.</param>
    public void Write(Span<byte> code, VirtualAddress address, VirtualAddress site)
    {
        int move = MoveLength;
        int number = _register - 1;
        byte low = (byte)(number & 7);
        switch (move)
        {
            case 5 or 6:
                code[0] = 0x41; // REX.B: r8 to r15
                code[move - 5] = (byte)(0xb8 + low);
                BinaryPrimitives.WriteUInt32LittleEndian(code[(move - 4)..], (uint)_value);
                break;
            case 7:
                code[0] = (byte)(0x48 | number >> 3); // REX.W, REX.B
                code[1] = 0xc7;
                code[2] = (byte)(0xc0 + low);
                BinaryPrimitives.WriteInt32LittleEndian(code[3..], (int)_value);
                break;
            case 10:
                code[0] = (byte)(0x48 | number >> 3);
                code[1] = (byte)(0xb8 + low);
                BinaryPrimitives.WriteUInt64LittleEndian(code[2..], _value);
                break;
        }

        if (_addressRegister != 0)
        {
            number = _addressRegister - 1;
            code[move] = (byte)(0x48 | number >> 3 << 2); // REX.W, REX.R
            code[move + 1] = 0x8d;
            code[move + 2] = (byte)(0x05 | (number & 7) << 3); // [rip+disp32]
            int distance = checked((int)(site - (address + move + AddressLength))); // in reach: one arena
            BinaryPrimitives.WriteInt32LittleEndian(code[(move + 3)..], distance);
        }
    }

    private static byte Number(RegisterSet register) =>
        (byte)(register.IsEmpty ? 0 : BitOperations.TrailingZeroCount(register.Bits) + 1);

    private static RegisterSet Set(byte register) => register == 0 ? RegisterSet.None : RegisterSet.General(register - 1);
}

/// <summary>
/// Stubs of sites with an argument: they load it and go on to a function, or through the slot. One for each site and where it goes on to,
/// immutable, kept as long as the site's block.
/// </summary>
/// <remarks>
/// A site as it is emitted, its stub, and both after a switch to a function:
/// <code>
/// site    2e e8 dd dd dd dd     cs call stub              the return address is the site's end
/// stub    bf 78 56 34 12        mov edi,0x12345678
///         ff 25 dd dd dd dd     jmp [rip+slot]
///
/// site    2e e8 dd dd dd dd     cs call stub
/// stub    bf 78 56 34 12        mov edi,0x12345678        another one
///         e9 dd dd dd dd        jmp function
/// </code>
/// </remarks>
internal sealed class ArgumentStubs(ArenaMemory memory, StubAllocator stubs)
{
    private const int SlotJumpLength = 6;
    private const int JumpLength = 5;

    private readonly Lock _lock = new();
    private readonly Dictionary<uint, List<Stub>> _bySite = [];

    /// <summary>The stub of a site that leads to a target, where there is one.</summary>
    public bool TryFind(uint site, VirtualAddress target, out VirtualAddress address)
    {
        lock (_lock)
        {
            int index = _bySite.TryGetValue(site, out List<Stub>? known) ? known.FindIndex(s => s.Target == target) : -1;
            address = index < 0 ? default : known![index].Address;
            return index >= 0;
        }
    }

    /// <summary>Writes a stub that was not found before.</summary>
    /// <param name="site">The site, from the arena's start.</param>
    /// <param name="argument">Its argument.</param>
    /// <param name="target">A function, or the slot's word.</param>
    /// <param name="isSlot">Whether it is a slot's word.</param>
    /// <param name="address">The stub's run address.</param>
    /// <param name="error">No room; nothing where the target is too far away.</param>
    public bool TryAdd(
        uint site, in ArgumentCode argument, VirtualAddress target, bool isSlot, out VirtualAddress address, out PatchDiagnostic? error)
    {
        int before = argument.Length;
        int length = before + (isSlot ? SlotJumpLength : JumpLength);
        if (!stubs.TryTake(length, out address, out error, site))
        {
            return false;
        }

        if (!Displacement.TryGet(address + length, target, 64, out int displacement))
        {
            stubs.Give(address, length);
            return false;
        }

        Span<byte> code = memory.Span(address, length);
        argument.Write(code, address, memory.Start + site);
        if (isSlot)
        {
            code[before++] = 0xff; // ff 25 disp32: jmp [rip+slot]
            code[before++] = 0x25;
        }
        else
        {
            code[before++] = 0xe9; // jmp rel32
        }

        BinaryPrimitives.WriteInt32LittleEndian(code[before..], displacement);
        lock (_lock)
        {
            if (!_bySite.TryGetValue(site, out List<Stub>? known))
            {
                known = [];
                _bySite.Add(site, known);
            }

            known.Add(new Stub(address, length, target));
        }

        return true;
    }

    /// <summary>The site whose stub begins at an address, for reports.</summary>
    public bool TryFindStub(VirtualAddress address, out VirtualAddress site)
    {
        bool owned = stubs.TryFindOwner(address, out uint owner);
        site = memory.Start + owner;
        return owned && TargetOf(owner, address) is not null;
    }

    /// <summary>Where the stub of a site at an address goes on to.</summary>
    public VirtualAddress? TargetOf(uint site, VirtualAddress address)
    {
        lock (_lock)
        {
            int index = _bySite.TryGetValue(site, out List<Stub>? known) ? known.FindIndex(s => s.Address == address) : -1;
            return index < 0 ? null : known![index].Target;
        }
    }

    /// <summary>Frees the stubs of a block nobody can be inside any more.</summary>
    /// <returns>Bytes made free.</returns>
    public long Free(CodeBlock block)
    {
        if (!block.HasArguments)
        {
            return 0;
        }

        lock (_lock)
        {
            long freed = 0;
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (_bySite.Remove(record.Offset, out List<Stub>? known))
                {
                    foreach (Stub stub in known)
                    {
                        stubs.Give(stub.Address, stub.Length);
                        freed += stub.Length;
                    }
                }
            }

            return freed;
        }
    }

    private readonly record struct Stub(VirtualAddress Address, int Length, VirtualAddress Target);
}
