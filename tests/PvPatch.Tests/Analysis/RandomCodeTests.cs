using PvPatch.Analysis;
using PvPatch.Machine;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Analysis;

/// <summary>
/// The emulator as the oracle: what a run changes the effects name; what they call dead can hold anything, and everything afterwards is the
/// same: registers, flags, memory. Each program is run from many states.
/// </summary>
public sealed class RandomCodeTests
{
    private const int Programs = 150;
    private const int Runs = 6;
    private const ulong Flags = 0x8d5; // OF SF ZF AF PF CF

    [Fact]
    public void What_effects_call_kept_no_run_changes()
    {
        UnicornCpu.RequireLibrary();
        Random random = TestSeed.NewRandom();
        int returned = 0;
        int kept = 0;
        for (int program = 0; program < Programs; program++)
        {
            AnalysedCode code = RandomFunctions.Create(random);
            var nothingKnown = new CodeAnalyzer(code.Image);
            var compiled = new CodeAnalyzer(code.Image, new TestFacts { Convention = CallConvention.KernelSysV });
            using var machine = new CodeMachine(code);
            for (int function = 0; function < 4; function++)
            {
                VirtualAddress address = code[$"f{function}"];
                var effects = new List<FunctionEffects> { nothingKnown.EffectsOf(address), compiled.EffectsOf(address) };
                if (compiled.Unconventional.Count > 0)
                {
                    effects.RemoveAt(1); // its callers are judged as if it did what it does not
                }

                kept += effects.Sum(static e => 16 - e.Destroys.Count);
                for (int run = 0; run < Runs; run++)
                {
                    State before = State.Random(random);
                    if (machine.Run(before, address.Value, CodeMachine.Return) is not State after)
                    {
                        continue;
                    }

                    returned++;
                    RegisterSet changed = before.Changed(after);
                    foreach (FunctionEffects found in effects)
                    {
                        Assert.True(found.Returns, $"{TestSeed.Name}, program {program}: f{function} returns");
                        Assert.True(found.Destroys.Contains(changed.Except(RegisterSet.Rsp)),
                            $"{TestSeed.Name}, program {program}: f{function} destroys {changed}, said to destroy {found.Destroys}");
                        Assert.True(!found.IsStackBalanced || !changed.Contains(RegisterSet.Rsp),
                            $"{TestSeed.Name}, program {program}: f{function} moves the stack pointer");
                    }
                }
            }
        }

        // Were nothing ever called kept, or nothing ever run, the test would hold of anything.
        Assert.True(returned > Programs, $"{returned} runs returned");
        Assert.True(kept > Programs, $"{kept} registers kept");
    }

    [Fact]
    public void What_is_dead_can_hold_anything()
    {
        UnicornCpu.RequireLibrary();
        Random random = TestSeed.NewRandom();
        int compared = 0;
        for (int program = 0; program < Programs; program++)
        {
            AnalysedCode code = RandomFunctions.Create(random);
            var analyzer = new CodeAnalyzer(code.Image);
            using var machine = new CodeMachine(code);

            // Places in the outermost function: what is not live at a return of another, its caller may read.
            KeyValuePair<string, ulong>[] places = [.. code.Labels.Where(l => l.Key[0] == 's' && l.Value < code["f1"].Value)];
            foreach ((string name, ulong place) in random.GetItems(places, 12))
            {
                // All is live at a return but two registers, so that some others can be dead.
                RegisterSet ignored = RegisterSet.General(random.Next(4)) | RegisterSet.Flags;
                SiteLiveness liveness = analyzer.LivenessAt(place, ~ignored);
                RegisterSet dead = liveness.Dead.Except(RegisterSet.Rsp | RegisterSet.Vector);
                if (dead.IsEmpty || machine.Run(State.Random(random), code["f0"].Value, place) is not State at)
                {
                    continue;
                }

                byte[] memory = machine.Memory();
                State? usual = machine.Run(at, place, CodeMachine.Return, keepsStack: true);
                byte[] usualMemory = machine.Memory();
                machine.Restore(memory);
                State? other = machine.Run(at.Scramble(dead, random), place, CodeMachine.Return, keepsStack: true);
                string what = $"{TestSeed.Name}, program {program}: at {name}, with {dead} scrambled";
                Assert.True(usual is null == other is null, what);
                if (usual is null || other is null)
                {
                    continue;
                }

                compared++;
                Assert.True(usual.Changed(other).Except(ignored).IsEmpty,
                    $"{what}: {usual.Changed(other)} differs, not looked at {ignored}\n{code.Disassemble(place)}");
                Assert.True(usualMemory.AsSpan(0, CodeMachine.CompareLength)
                    .SequenceEqual(machine.Memory().AsSpan(0, CodeMachine.CompareLength)), what);
            }
        }

        Assert.True(compared > Programs / 4, $"{compared} runs compared");
    }

    /// <summary>Registers and flags.</summary>
    private sealed record State(ulong[] Registers, ulong Flags)
    {
        public static State Random(Random random)
        {
            ulong[] registers = new ulong[16];
            for (int i = 0; i < 16; i++)
            {
                registers[i] = random.Next(3) == 0 ? (ulong)random.Next(4) : (ulong)random.NextInt64();
            }

            return new State(registers, ((ulong)random.Next() & RandomCodeTests.Flags) | 2);
        }

        public RegisterSet Changed(State other)
        {
            RegisterSet changed = (Flags & RandomCodeTests.Flags) != (other.Flags & RandomCodeTests.Flags)
                ? RegisterSet.Flags : RegisterSet.None;
            for (int i = 0; i < 16; i++)
            {
                changed |= Registers[i] != other.Registers[i] ? RegisterSet.General(i) : RegisterSet.None;
            }

            return changed;
        }

        public State Scramble(RegisterSet dead, Random random)
        {
            ulong[] registers = [.. Registers];
            for (int i = 0; i < 16; i++)
            {
                registers[i] = dead.Contains(RegisterSet.General(i)) ? (ulong)random.NextInt64() : registers[i];
            }

            ulong flags = dead.Contains(RegisterSet.Flags) ? (ulong)random.Next() & RandomCodeTests.Flags : Flags & RandomCodeTests.Flags;
            return new State(registers, (Flags & ~RandomCodeTests.Flags) | flags);
        }
    }

    private sealed class CodeMachine : IDisposable
    {
        public const ulong Return = 0x500000;
        private const ulong Stack = 0x200000;
        private const int StackLength = 0x10000;
        private const ulong StackTop = Stack + 0x8000;
        private const int DataLength = 32;

        private readonly UnicornCpu _cpu = new(64);

        public CodeMachine(AnalysedCode code)
        {
            _cpu.Map(AnalysedCode.Start, code.Bytes.Length + 16);
            _cpu.Write(AnalysedCode.Start, code.Bytes);
            _cpu.Map(Stack, StackLength);
            _cpu.Map(RandomFunctions.Data, 0x1000);
            _cpu.Map(Return, 0x1000);

            // A run to another place may have translated this one already, and what was translated does not stop here by itself.
            _cpu.Write(Return, [0xf4]); // hlt
        }

        /// <summary>
        /// The bytes at the front of <see cref="Memory"/> that the code's caller sees: its data. The stack behind is scratch.
        /// </summary>
        public static int CompareLength => DataLength;

        public void Dispose() => _cpu.Dispose();

        public byte[] Memory() => [.. _cpu.Read(RandomFunctions.Data, DataLength), .. _cpu.Read(Stack, StackLength)];

        public void Restore(byte[] memory)
        {
            _cpu.Write(RandomFunctions.Data, memory.AsSpan(0, DataLength));
            _cpu.Write(Stack, memory.AsSpan(DataLength));
        }

        /// <summary>Runs until an address is reached, in at most a few thousand instructions.</summary>
        public State? Run(State state, ulong from, ulong until, bool keepsStack = false)
        {
            for (int i = 0; i < 16; i++)
            {
                if (i == 4 && !keepsStack)
                {
                    state.Registers[i] = StackTop;
                    _cpu.Write(StackTop, BitConverter.GetBytes(Return));
                }

                _cpu[CpuRegister.Rax + i] = state.Registers[i];
            }

            _cpu[CpuRegister.Flags] = state.Flags;
            try
            {
                _cpu.Run(from, until, 3000);
            }
            catch (InvalidOperationException) when (until == Return && _cpu[CpuRegister.Rip] == Return + 1)
            {
                // It has returned, and stopped there.
            }
            catch (InvalidOperationException)
            {
                return null;
            }

            var after = new State([.. Enumerable.Range(0, 16).Select(i => _cpu[CpuRegister.Rax + i])], _cpu[CpuRegister.Flags]);
            if (until == Return)
            {
                after.Registers[4] -= 8; // the return address is popped
            }

            return after;
        }
    }
}
