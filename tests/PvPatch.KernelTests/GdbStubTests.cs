using System.Net.Sockets;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>gdb's protocol against a far end that says what it is told to say.</summary>
public sealed class GdbStubTests
{
    [Fact]
    public void Packets_come_through_in_pieces_and_behind_acknowledgements()
    {
        using FakeStub far = new("+$T05thr", "ead:01;#07+", "$OK#9a");
        using GdbStub stub = far.Connect();

        stub.SetBreakpoint(0xffff_ffff_8100_0000);

        Assert.StartsWith("$?#3f", far.Received(5), StringComparison.Ordinal);
        Assert.Equal("+$Z1,ffffffff81000000,1#cd", far.Received(26));
    }

    [Fact]
    public void A_packet_with_a_wrong_sum_is_refused()
    {
        using FakeStub far = new("+$T05thread:01;#08");

        Assert.Throws<InvalidDataException>(far.Connect);
    }

    [Fact]
    public void A_refused_command_is_reported()
    {
        using FakeStub far = new("+$T05thread:01;#07", "+$E22#a9");
        using GdbStub stub = far.Connect();

        InvalidOperationException exception = Assert.Throws<InvalidOperationException>(() => stub.SetBreakpoint(1));

        Assert.Contains("E22", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_end_of_qemu_is_no_stop()
    {
        using FakeStub far = new("+$T05thread:01;#07", "+$W00#b7");
        using GdbStub stub = far.Connect();
        stub.Continue();

        Assert.Throws<IOException>(() => stub.StopsWithin(TimeSpan.FromSeconds(30)));
    }

    [Fact]
    public void A_connection_that_breaks_is_the_end_of_qemu_too()
    {
        using FakeStub far = new("+$T05thread:01;#07", "+$W00#b7");
        using GdbStub stub = far.Connect();
        far.Close();

        // The packet is still there to be read; acknowledging it meets a broken pipe.
        Assert.Throws<IOException>(() => stub.StopsWithin(TimeSpan.FromSeconds(30)));
        Assert.Throws<IOException>(stub.Continue);
    }

    [Fact]
    public void A_machine_that_runs_on_is_told_from_one_that_stopped()
    {
        using FakeStub far = new("+$T05thread:01;#07", "+");
        using GdbStub stub = far.Connect();
        stub.Continue();

        Assert.False(stub.StopsWithin(TimeSpan.FromMilliseconds(50)));
    }

    [Fact]
    public void Registers_are_read_and_written_at_their_places()
    {
        byte[] bytes = new byte[200];
        GdbRegisters registers = new(bytes);
        registers.Rsp = 0x1122_3344_5566_7788;
        registers.Rip = 0xffff_ffff_8100_0000;
        bytes[5 * 8] = 7;

        Assert.Equal("8877665544332211", Convert.ToHexStringLower(bytes, 7 * 8, 8));
        Assert.Equal("00000081ffffffff", Convert.ToHexStringLower(bytes, 16 * 8, 8));
        Assert.Equal(7UL, registers.Rdi);
        Assert.Equal(0UL, registers.Rsi + registers.Rdx + registers.Rcx);
    }

    /// <summary>The far end: sends all it has to say at once; the near end reads it packet by packet.</summary>
    private sealed class FakeStub : IDisposable
    {
        private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-gdb-");
        private readonly Socket _near = New();
        private readonly Socket _far;

        public FakeStub(params string[] pieces)
        {
            UnixDomainSocketEndPoint place = new(Path.Combine(_directory.FullName, "gdb"));
            using Socket listener = New();
            listener.Bind(place);
            listener.Listen(1);
            _near.Connect(place);
            _far = listener.Accept();
            _far.ReceiveTimeout = 30_000;
            foreach (string piece in pieces)
            {
                _far.Send(System.Text.Encoding.ASCII.GetBytes(piece));
            }
        }

        public GdbStub Connect()
        {
            return new GdbStub(_near);
        }

        /// <summary>The next bytes the near end has sent.</summary>
        public string Received(int length)
        {
            byte[] bytes = new byte[length];
            int done = 0;
            while (done < length)
            {
                int count = _far.Receive(bytes.AsSpan(done));
                Assert.NotEqual(0, count);
                done += count;
            }

            return System.Text.Encoding.ASCII.GetString(bytes);
        }

        public void Close() => _far.Dispose();

        public void Dispose()
        {
            _far.Dispose();
            _near.Dispose();
            _directory.Delete(recursive: true);
        }

        private static Socket New()
        {
            return new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        }
    }
}
