namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Places at which a guest asks its hypervisor in another way than by CPUID. QEMU's translator would not answer, or the processor would
/// fault.
/// </summary>
internal abstract class GuestStops(GdbStub stub)
{
    private readonly HashSet<ulong> _places = [];
    private bool _set;

    protected GdbStub Stub => stub;

    /// <summary>Sets the breakpoints, the first time it is called. The kernel is mapped where it was linked.</summary>
    public void SetOnce()
    {
        if (_set)
        {
            return;
        }

        _set = true;
        foreach (ulong place in Find())
        {
            _places.Add(place);
            stub.SetBreakpoint(place);
        }
    }

    /// <summary>Answers a machine that stopped at one of the places, and gets it over it.</summary>
    /// <returns>False if it stopped somewhere else.</returns>
    public bool TryAnswer(GdbRegisters registers)
    {
        if (!_places.Contains(registers.Rip))
        {
            return false;
        }

        Answer(registers);
        return true;
    }

    protected abstract IEnumerable<ulong> Find();

    /// <summary>Either leaves the place or steps over it.</summary>
    protected abstract void Answer(GdbRegisters registers);

    /// <summary>Sees to it that the machine does not stop at a place any more.</summary>
    protected void Remove(ulong place)
    {
        if (_places.Remove(place))
        {
            stub.ClearBreakpoint(place);
        }
    }

    /// <summary>The code from one symbol to the next.</summary>
    protected byte[] ReadFunction(ulong start, IReadOnlyDictionary<string, ulong> symbols)
    {
        ulong end = symbols.Values.Where(address => address > start).Min();
        return stub.ReadMemory(start, (int)Math.Min(end - start, 4096));
    }
}
