using Iced.Intel;
using PvPatch.Images;

namespace PvPatch.Analysis;

/// <summary>The instructions of an image read so far, each when control first comes to its address.</summary>
internal sealed class StepStore
{
    private const int ChunkBits = 13;
    private const int ChunkSize = 1 << ChunkBits;

    private readonly CodeImage _image;
    private readonly ICodeFacts _facts;
    private readonly StepReader _reader;
    private readonly List<CodeStep[]> _chunks = [];
    private readonly Dictionary<ulong, int> _indices = [];
    private CodeSegment? _segment;
    private SegmentReader? _bytes;
    private Decoder? _decoder;

    public StepStore(CodeImage image, ICodeFacts facts)
    {
        _image = image;
        _facts = facts;
        _reader = new StepReader(image.Bitness);
    }

    public int Count { get; private set; }

    public ref CodeStep this[int index] => ref _chunks[index >> ChunkBits][index & (ChunkSize - 1)];

    /// <summary>The step at an address. One where no instruction is says so.</summary>
    public int At(ulong address)
    {
        if (!_indices.TryGetValue(address, out int index))
        {
            index = Count++;
            _indices.Add(address, index);
            if (index >> ChunkBits == _chunks.Count)
            {
                _chunks.Add(new CodeStep[ChunkSize]);
            }

            this[index] = Read(address);
        }

        return index;
    }

    /// <summary>The step after one that goes on.</summary>
    public int After(int index)
    {
        int next = this[index].Next;
        if (next < 0)
        {
            next = At(this[index].NextAddress);
            this[index].Next = next;
        }

        return next;
    }

    private CodeStep Read(ulong address)
    {
        if (_segment is null || !_segment.Contains(address, 1))
        {
            _segment = _image.Find(address, 1);
            if (_segment is null)
            {
                return new CodeStep
                {
                    Address = address,
                    NextAddress = address,
                    Flow = StepFlow.Invalid,
                    Next = -1,
                    Register = CodeStep.NoRegister,
                    Base = CodeStep.NoRegister,
                };
            }

            _bytes = new SegmentReader(_segment);
            _decoder = Decoder.Create(_image.Bitness, _bytes);
        }

        _bytes!.Position = (int)(address - _segment.Address.Value);
        _decoder!.IP = address;
        _decoder.Decode(out Instruction instruction);
        CodeStep step = _reader.Read(instruction);
        step.HasEdges = step.Flow != StepFlow.Invalid && _facts.EdgesOf(address).Count > 0;
        ulong behind = step.NextAddress;
        bool goesOn = step.Flow is StepFlow.Next or StepFlow.Branch or StepFlow.Call or StepFlow.IndirectCall or StepFlow.Outside;
        step.NextAddress = goesOn ? _facts.NextOf(address, behind).Value : behind;
        step.IsDiverted = step.NextAddress != behind || behind < address;
        return step;
    }

    private sealed class SegmentReader(CodeSegment segment) : CodeReader
    {
        public int Position { get; set; }

        public override int ReadByte()
        {
            ReadOnlySpan<byte> bytes = segment.Bytes.Span;
            return Position < bytes.Length ? bytes[Position++] : -1;
        }
    }
}
