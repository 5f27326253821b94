using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Paravirt;

/// <summary>An lguest guest (32-bit, 2.6.23 to about 4.13): interrupts are allowed by a word in memory shared with the host.</summary>
public static class LguestBackend
{
    private const int Bitness = 32;

    /// <summary>The backend's name.</summary>
    public const string Name = "lguest";

    /// <summary>Makes the lguest backend for any 32-bit layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="targets">Where the functions are, those of lguest (<c>lguest_…</c>, <c>lg_…</c>) and the native ones that stay.</param>
    /// <param name="options">What guests disagree on; <see langword="null"/> for 2.6.31 and later.</param>
    /// <returns>The backend. A slot that lguest must replace is missing where its function is not known and it has no body.</returns>
    /// <exception cref="ArgumentException"><c>lguest_data</c> lies above 4 GiB.</exception>
    public static Backend Create(OpsLayout layout, SlotTargets targets, LguestOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        options ??= new LguestOptions();
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, Bitness, targets, new NativeOptions());
        VirtualAddress? data = options.LguestData ?? targets.Find("lguest_data");
        if (data is { Value: > uint.MaxValue })
        {
            throw new ArgumentException($"lguest_data at {data} is no 32-bit address", nameof(options));
        }

        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, OperationOf(name, slot));
            }
        });

        Operation OperationOf(string name, OpSlot slot)
        {
            string[] symbols = LguestFunctions.Of(name);
            Operation called = symbols.Length == 0 ? native.WithoutBody(name, slot)
                : targets.TryFind(symbols, out string? symbol, out VirtualAddress target) ? NativeOperations.Leave(slot, target, symbol)
                : LguestFunctions.IsAlwaysReplaced(name) ? Operation.Missing
                : native.WithoutBody(name, slot);
            if (data is not VirtualAddress shared || BodyOf(name, shared, options.InlineEnableAndRestore) is not InlineBody body)
            {
                return called;
            }

            // Where the body does not fit, the backend's patch function goes on with the default rule.
            Operation inlined = Operation.Inline(body).DefaultingWhereTooLong();
            return called.Target is VirtualAddress function ? inlined.WithTarget(function, called.TargetName) : inlined;
        }
    }

    private static InlineBody? BodyOf(string name, VirtualAddress lguestData, bool all)
    {
        // irq_enabled is the first word of the shared memory and holds the flags register's IF bit (0x200) or nothing.
        long irqEnabled = (long)lguestData.Value;
        return name switch
        {
            // mov dword [irq_enabled],0: c7 05 a32 00 00 00 00
            "irq.irq_disable" => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], 0)),

            // mov eax,[irq_enabled]: a1 a32
            "irq.save_fl" => InlineBody.Create(a => a.mov(eax, __dword_ptr[irqEnabled])),

            // mov dword [irq_enabled],200: c7 05 a32 00 02 00 00
            "irq.irq_enable" when all => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], 0x200)),

            // mov [irq_enabled],eax: a3 a32
            "irq.restore_fl" when all => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], eax)),
            _ => null,
        };
    }
}
