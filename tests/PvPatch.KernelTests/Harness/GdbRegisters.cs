using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The registers of an x86-64 processor in gdb's order: rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15, rip, eight
/// bytes each, then those nothing here looks at.
/// </summary>
internal sealed class GdbRegisters(byte[] bytes)
{
    public byte[] Bytes => bytes;

    public ulong Rax
    {
        get => Read(0);
        set => Write(0, value);
    }

    public ulong Rbx
    {
        get => Read(1);
        set => Write(1, value);
    }

    public ulong Rcx
    {
        get => Read(2);
        set => Write(2, value);
    }

    public ulong Rdx
    {
        get => Read(3);
        set => Write(3, value);
    }

    public ulong Rsi => Read(4);

    public ulong Rdi => Read(5);

    public ulong Rsp
    {
        get => Read(7);
        set => Write(7, value);
    }

    public ulong R10
    {
        get => Read(10);
        set => Write(10, value);
    }

    public ulong R11
    {
        get => Read(11);
        set => Write(11, value);
    }

    public ulong Rip
    {
        get => Read(16);
        set => Write(16, value);
    }

    private ulong Read(int index)
    {
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(index * sizeof(ulong)));
    }

    private void Write(int index, ulong value)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(index * sizeof(ulong)), value);
    }
}
