using PvPatch.Machine;

namespace PvPatch.Tests.Properties;

/// <summary>Inline bodies for random backends, as bytes with their assembly; made for <see cref="Origin"/>.</summary>
internal static class Bodies
{
    public const ulong Origin = 0x410000;

    private static readonly string[] s_hex64 =
    [
        "b8 07 00 00 00", // mov eax,7
        "31 c0", // xor eax,eax
        "48 8b 04 3b", // mov rax,[rbx+rdi]
        "0f 31", // rdtsc
        "c6 07 00", // mov byte [rdi],0
        "9c 58", // pushfq; pop rax
        "57 9d", // push rdi; popfq
        "48 b8 08 07 06 05 04 03 02 01", // mov rax,0x102030405060708
        "50 58", // push rax; pop rax
        "f3 0f 10 c1", // movss xmm0,xmm1
        "0f a2", // cpuid
        "e8 fb 0f 00 00", // call 0x411000
        "85 c0 74 02 ff c1", // test eax,eax; jz over; inc ecx
        "65 48 8b 04 25 10 00 00 00", // mov rax,gs:[0x10]
        "fa", // cli
        "48 8b 05 f9 0f 00 00", // mov rax,[rip+...] = [0x411000]
        "85 c9 74 05 e9 f7 0f 00 00", // test ecx,ecx; jz over; jmp 0x411000
        "41 54 49 89 fc 41 5c", // push r12; mov r12,rdi; pop r12
        "e9 fb 0f 00 00", // jmp 0x411000
        "e8 fb 0f 00 00 e8 f6 0f 00 00 48 31 c9", // call, call 0x411000; xor rcx,rcx
        "48 b8 08 07 06 05 04 03 02 01 48 b9 08 07 06 05 04 03 02 01", // 20 bytes
    ];

    private static readonly string[] s_hex32 =
    [
        "b8 07 00 00 00", // mov eax,7
        "31 c0", // xor eax,eax
        "8b 04 3b", // mov eax,[ebx+edi]
        "0f 31", // rdtsc
        "c6 00 00", // mov byte [eax],0
        "9c 58", // pushfd; pop eax
        "50 9d", // push eax; popfd
        "a1 00 10 00 00", // mov eax,[0x1000]
        "f3 0f 10 c1", // movss xmm0,xmm1
        "0f a2", // cpuid
        "e8 fb 0f 00 00", // call 0x411000
        "85 c0 74 01 41", // test eax,eax; jz over; inc ecx
        "64 a1 10 00 00 00", // mov eax,fs:[0x10]
        "fa", // cli
        "60 61", // pusha; popa
        "c7 05 00 10 00 00 00 02 00 00", // mov dword [0x1000],0x200
        "e9 fb 0f 00 00", // jmp 0x411000
        "53 89 c3 5b", // push ebx; mov ebx,eax; pop ebx
    ];

    private static readonly IReadOnlyList<InlineBody> s_bodies64 = Make(s_hex64);
    private static readonly IReadOnlyList<InlineBody> s_bodies32 = Make(s_hex32);

    public static IReadOnlyList<InlineBody> Of(int bitness) => bitness == 64 ? s_bodies64 : s_bodies32;

    /// <summary>The bytes of a body, for a model of what it is to do.</summary>
    public static byte[] Bytes(int bitness, int index) =>
        Convert.FromHexString((bitness == 64 ? s_hex64 : s_hex32)[index].Replace(" ", "", StringComparison.Ordinal));

    private static InlineBody[] Make(string[] hex) =>
        [.. hex.Select(h => InlineBody.FromBytes(Convert.FromHexString(h.Replace(" ", "", StringComparison.Ordinal)), Origin))];
}
