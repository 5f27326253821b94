using Iced.Intel;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks;

/// <summary>What one would write with Iced and without PvPatch: every site encoded on its own, then filled with nops.</summary>
internal sealed class IcedRivals
{
    private readonly Workload _work;
    private readonly Instruction[][] _bodies;
    private readonly SpanWriter _writer = new();
    private readonly Encoder _encoder;

    public IcedRivals(Workload work)
    {
        _work = work;
        _encoder = Encoder.Create(64, _writer);
        _bodies = [.. SyntheticOps.All.Select((op, slot) => op.Kind == OperationKind.Call
            ? [Instruction.CreateBranch(Code.Call_rel32_64, Workload.Target(slot))]
            : Decode(op.Body))];
    }

    /// <summary>One encoder for all sites: the fast way.</summary>
    public void WithEncoder()
    {
        foreach (ref readonly PatchSite site in _work.Sites.Sites)
        {
            if (!Allows(site))
            {
                continue;
            }

            Span<byte> there = _work.Text.AsSpan((int)(site.Address - Workload.Base), site.Budget);
            _writer.Begin(_work.Text, (int)(site.Address - Workload.Base));
            ulong ip = site.Address.Value;
            uint length = 0;
            foreach (ref readonly Instruction instruction in _bodies[site.Slot].AsSpan())
            {
                length += _encoder.Encode(instruction, ip + length);
            }

            NopFill.Fill(there[(int)length..]);
        }
    }

    /// <summary>The block encoder for each site: the comfortable way.</summary>
    public void WithBlockEncoder()
    {
        foreach (ref readonly PatchSite site in _work.Sites.Sites)
        {
            if (!Allows(site))
            {
                continue;
            }

            int offset = (int)(site.Address - Workload.Base);
            _writer.Begin(_work.Text, offset);
            if (!BlockEncoder.TryEncode(
                64, new InstructionBlock(_writer, _bodies[site.Slot], site.Address.Value), out string? error, out _))
            {
                throw new InvalidOperationException(error);
            }

            NopFill.Fill(_work.Text.AsSpan(_writer.Position, offset + site.Budget - _writer.Position));
        }
    }

    private static bool Allows(in PatchSite site) => site.Clobbers.Contains(SyntheticOps.All[site.Slot].Destroys);

    private static Instruction[] Decode(byte[] body)
    {
        var decoder = Decoder.Create(64, body);
        var all = new List<Instruction>();
        while (decoder.IP < (ulong)body.Length)
        {
            all.Add(decoder.Decode());
        }

        return [.. all];
    }

    /// <summary>Writes straight into the image: cheaper than a buffer and a copy.</summary>
    private sealed class SpanWriter : CodeWriter
    {
        private byte[] _bytes = [];

        public int Position { get; private set; }

        public void Begin(byte[] bytes, int position)
        {
            _bytes = bytes;
            Position = position;
        }

        public override void WriteByte(byte value) => _bytes[Position++] = value;
    }
}
