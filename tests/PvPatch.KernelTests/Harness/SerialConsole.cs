using System.Diagnostics;
using System.Net.Sockets;
using System.Text;

namespace PvPatch.KernelTests.Harness;

/// <summary>The guest's console: read by a thread of its own, so that a mark is seen the moment it is printed.</summary>
internal sealed class SerialConsole : IDisposable
{
    private readonly Socket _socket;
    private readonly Thread _thread;
    private readonly object _gate = new();
    private readonly StringBuilder _text = new();
    private bool _closed;

    public SerialConsole(Socket socket)
    {
        _socket = socket;
        _thread = new Thread(ReadAll) { IsBackground = true, Name = "serial console" };
        _thread.Start();
    }

    /// <summary>Everything printed so far.</summary>
    public string Text
    {
        get
        {
            lock (_gate)
            {
                return _text.ToString();
            }
        }
    }

    /// <summary>Whether the guest's end is gone, and with it any hope for more text.</summary>
    public bool IsClosed
    {
        get
        {
            lock (_gate)
            {
                return _closed;
            }
        }
    }

    /// <summary>Waits for a text; false if the time is over or the guest ended without it.</summary>
    public bool WaitFor(string mark, TimeSpan timeout)
    {
        Stopwatch clock = Stopwatch.StartNew();
        lock (_gate)
        {
            while (true)
            {
                if (_text.ToString().Contains(mark, StringComparison.Ordinal))
                {
                    return true;
                }

                TimeSpan left = timeout - clock.Elapsed;
                if (_closed || left <= TimeSpan.Zero)
                {
                    return false;
                }

                Monitor.Wait(_gate, left);
            }
        }
    }

    public void Dispose()
    {
        _socket.Dispose();
        _thread.Join(TimeSpan.FromSeconds(5));
    }

    private void ReadAll()
    {
        byte[] buffer = new byte[4096];
        while (true)
        {
            int count = Receive(buffer);
            lock (_gate)
            {
                _text.Append(System.Text.Encoding.Latin1.GetString(buffer, 0, count));
                _closed = count == 0;
                Monitor.PulseAll(_gate);
                if (_closed)
                {
                    return;
                }
            }
        }
    }

    private int Receive(byte[] buffer)
    {
        try
        {
            return _socket.Receive(buffer);
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // QEMU died, or this end was closed: both are the end of the text.
            return 0;
        }
    }
}
