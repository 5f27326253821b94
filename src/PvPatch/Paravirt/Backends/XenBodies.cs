using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Paravirt;

/// <summary>
/// Xen's inline interrupt operations: events are masked by a byte in memory shared with the hypervisor, not by the CPU. The byte counts
/// below are those of the per-CPU forms; without the segment prefix each memory operand is one byte shorter.
/// </summary>
internal sealed class XenBodies
{
    private readonly int _bitness;
    private readonly XenDirectForm _form;
    private readonly bool _perCpu;
    private readonly long _pending;
    private readonly long _mask;
    private readonly ulong _checkEvents;

    private XenBodies(int bitness, XenDirectBodies options, VirtualAddress? checkEvents)
    {
        _bitness = bitness;
        _form = options.Form;
        _perCpu = options.PerCpu;
        _pending = (long)options.VcpuInfo.Value;
        _mask = _pending + 1;
        _checkEvents = checkEvents?.Value ?? 0;
    }

    /// <summary>The bodies, or nothing where the options ask for none.</summary>
    /// <exception cref="ArgumentException">The form does not exist at this bitness, or vcpu_info is out of reach.</exception>
    public static XenBodies? Create(int bitness, XenOptions options, SlotTargets targets)
    {
        if (options.DirectBodies is not XenDirectBodies direct || !options.VcpuInfoPlaced)
        {
            return null;
        }

        if (bitness == 64 && direct.Form == XenDirectForm.AndWord)
        {
            throw new ArgumentException("kernels that unmasked with an and had no 64-bit inline forms", nameof(options));
        }

        // Operands hold 32 bits, which 64-bit code extends by sign.
        long first = (long)direct.VcpuInfo.Value;
        bool fits = bitness == 64 ? first is >= int.MinValue and < int.MaxValue : direct.VcpuInfo.Value < uint.MaxValue;
        if (!fits)
        {
            throw new ArgumentException($"vcpu_info at {direct.VcpuInfo} can't be named by an instruction", nameof(options));
        }

        return new XenBodies(bitness, direct, direct.CheckEvents ?? targets.Find("check_events"));
    }

    /// <summary>The body of a slot.</summary>
    /// <param name="name">The slot's standard name.</param>
    /// <returns>The body, <see langword="null"/> where there is none.</returns>
    public InlineBody? Find(string name) => name switch
    {
        // mov byte fs:[mask],1: 64 c6 05 a32 01; gs: 65 c6 04 25 a32 01
        "irq.irq_disable" => InlineBody.Create(a => a.mov(Operand(__byte_ptr, _mask), 1)),

        // test byte fs:[mask],ff: 64 f6 05 a32 ff; gs: 65 f6 04 25 a32 ff. setz ah: 0f 94 c4. add ah,ah: 00 e4.
        // IF is bit 9, bit 1 of ah: "not masked" (1) is doubled to get there.
        "irq.save_fl" => InlineBody.Create(a =>
        {
            a.test(Operand(__byte_ptr, _mask), 0xff);
            a.setz(ah);
            a.add(ah, ah);
        }),
        "irq.irq_enable" when _checkEvents != 0 => InlineBody.Create(WriteEnable, RegisterSet.Flags),
        "irq.restore_fl" when _checkEvents != 0 => InlineBody.Create(WriteRestore, RegisterSet.Flags),
        _ => null,
    };

    private void WriteEnable(Assembler a)
    {
        Label done = a.CreateLabel();
        if (_form == XenDirectForm.AndWord)
        {
            // and word fs:[pending],00ff: 64 66 81 25 a32 ff 00. Clears the mask, and tells by ZF whether an event is pending.
            a.and(Operand(__word_ptr, _pending), 0x00ff);
        }
        else
        {
            // mov byte fs:[mask],0: 64 c6 05 a32 00; gs: 65 c6 04 25 a32 00. Unmask first: an event that comes between is
            // delivered by the hypervisor, one that came before is seen by the test.
            a.mov(Operand(__byte_ptr, _mask), 0);

            // test byte fs:[pending],ff: 64 f6 05 a32 ff; gs: 65 f6 04 25 a32 ff
            a.test(Operand(__byte_ptr, _pending), 0xff);
        }

        a.je(done); // 74 05
        a.call(_checkEvents); // e8 rel32
        a.Label(ref done);
        a.zero_bytes();
    }

    private void WriteRestore(Assembler a)
    {
        Label done = a.CreateLabel();
        if (_bitness == 64)
        {
            a.test(di, 0x200); // test di,200: 66 f7 c7 00 02
        }
        else
        {
            a.test(ah, 2); // test ah,2: f6 c4 02
        }

        // setz fs:[mask]: 64 0f 94 05 a32; gs: 65 0f 94 04 25 a32. Masked where IF was clear.
        a.setz(Operand(__byte_ptr, _mask));

        // cmp word fs:[pending],1: 64 66 83 3d a32 01; gs: 65 66 83 3c 25 a32 01. Pending and not masked, in one comparison.
        a.cmp(Operand(__word_ptr, _pending), 1);
        if (_form == XenDirectForm.StoreAndTestFixed)
        {
            a.jne(done); // 75 05
        }
        else
        {
            a.je(done); // 74 05: calls when nothing is to be done, and not when something is; this is what those kernels had.
        }

        a.call(_checkEvents); // e8 rel32
        a.Label(ref done);
        a.zero_bytes();
    }

    private AssemblerMemoryOperand Operand(AssemblerMemoryOperandFactory size, long offset)
    {
        if (!_perCpu)
        {
            return size[offset];
        }

        return _bitness == 64 ? size.gs[offset] : size.fs[offset];
    }
}
