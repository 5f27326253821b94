using System.Buffers.Binary;
using System.Globalization;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Fuzz;

namespace PvPatch.KernelTests.Damage;

/// <summary>
/// The core of a real machine with damage in its headers and notes: opened, and one in sixteen searched for the kernel, or refused.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class DamagedCoreTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private const int Usual = 100;
    private const long MostAllocated = 16 << 20;

    [Fact]
    public void Damage_in_a_core_gives_memory_or_a_diagnostic()
    {
        Require.Tool("cp", "coreutils");

        // The boot that other tests of cores share; the copy has holes where the core has.
        BootedKernel booted = fixture.Boot(
            Kernels.Bookworm, new MachineOptions { Core = CoreForm.Physical, MemoryMiB = 384, Kaslr = true });
        ElfImage kernel = TestedKernels.Load(booted.ImagePath).Elf;
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        try
        {
            Assert.True(ExternalTool.Run("cp", ["--sparse=always", booted.ReadyCore!, path], TimeSpan.FromMinutes(2)).Succeeded);
            Damage(path, kernel);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private void Damage(string path, ElfImage kernel)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
        byte[] head = Head(file);
        (int, int)[] regions = [(0, 64), (0, head.Length)];
        SortedDictionary<string, int> results = [];
        Assert.Null(Read(path, kernel, locate: true));
        int count = DamageRun.CountFor(Usual);
        int first = DamageRun.FirstSeed;
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            var damage = new TableDamage(seed);
            damage.Do(head, regions);
            RandomAccess.Write(file.SafeFileHandle, head, 0);
            string name = string.Create(CultureInfo.InvariantCulture, $"core, PVPATCH_FUZZ_SEED={seed}");
            long before = GC.GetAllocatedBytesForCurrentThread();
            PatchDiagnostic? error;
            try
            {
                error = Read(path, kernel, seed % 16 == 0);
            }
            catch (Exception exception)
            {
                throw new InvalidOperationException($"{name} made the reader throw", exception);
            }

            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(allocated <= MostAllocated, $"{name} allocated {allocated} bytes");
            Assert.True(error is null || error.Code.StartsWith("PV61", StringComparison.Ordinal), $"{name}: {error}");
            results[error?.Code ?? "taken"] = results.GetValueOrDefault(error?.Code ?? "taken") + 1;
            damage.Undo(head);
        }

        RandomAccess.Write(file.SafeFileHandle, head, 0);
        Assert.Null(Read(path, kernel, locate: true));
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"core: {count} inputs; {string.Join(", ", results.Select(static r => $"{r.Key} {r.Value}"))}"));
        Assert.True(count < Usual || results.Count > 2, "the damage says nothing about the reader");
    }

    private static PatchDiagnostic? Read(string path, ElfImage kernel, bool locate)
    {
        if (!MemoryFile.TryOpen(path, null, out MemoryFile? memory, out PatchDiagnostic? error))
        {
            return error;
        }

        using (memory)
        {
            Span<byte> bytes = stackalloc byte[64];
            _ = memory.HasPhysicalAddresses && memory.TryReadPhysical(0x100000, bytes);
            _ = memory.HasVirtualAddresses && memory.TryReadVirtual(0xffffffff81000000, bytes);
            _ = locate && !KernelMemoryLocator.TryLocate(kernel, memory, out _, out error);
            return error;
        }
    }

    /// <summary>All before the first byte of memory: headers and notes.</summary>
    private static byte[] Head(FileStream file)
    {
        byte[] start = new byte[4096];
        RandomAccess.Read(file.SafeFileHandle, start, 0);
        int table = (int)BinaryPrimitives.ReadInt64LittleEndian(start.AsSpan(32));
        int segments = BinaryPrimitives.ReadUInt16LittleEndian(start.AsSpan(56));
        byte[] headers = new byte[segments * 56];
        RandomAccess.Read(file.SafeFileHandle, headers, table);
        const uint Load = 1;
        long end = Enumerable.Range(0, segments)
            .Where(i => BinaryPrimitives.ReadUInt32LittleEndian(headers.AsSpan(i * 56)) == Load)
            .Min(i => BinaryPrimitives.ReadInt64LittleEndian(headers.AsSpan((i * 56) + 8)));
        Assert.InRange(end, 64 + headers.Length, 1 << 20);
        byte[] head = new byte[end];
        RandomAccess.Read(file.SafeFileHandle, head, 0);
        return head;
    }
}
