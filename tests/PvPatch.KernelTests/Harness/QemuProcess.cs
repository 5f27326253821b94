using System.Diagnostics;
using System.Net.Sockets;

namespace PvPatch.KernelTests.Harness;

/// <summary>A running QEMU and its temporary directory; both are gone after Dispose.</summary>
internal sealed class QemuProcess : IDisposable
{
    private readonly Process _process = new();
    private readonly Task<string> _errors;

    /// <param name="directory">Temporary directory of this machine; deleted in the end.</param>
    /// <param name="arguments">QEMU's arguments.</param>
    public QemuProcess(string directory, IEnumerable<string> arguments)
    {
        DirectoryPath = directory;
        List<string> command = ["-n", "10"];

        // If the test process is killed no Dispose runs: let the kernel end QEMU with its parent.
        if (ExternalTool.Exists("setpriv"))
        {
            command.AddRange(["setpriv", "--pdeathsig", "KILL"]);
        }

        // nice and setpriv both replace themselves by their command, so this Process is QEMU itself.
        _process.StartInfo = new ProcessStartInfo("nice", [.. command, "qemu-system-x86_64", .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };

        // That signal comes when the starting *thread* ends, so QEMU gets a thread that lives as long as itself.
        TaskCompletionSource started = new();
        new Thread(() => Watch(started)) { IsBackground = true, Name = "qemu" }.Start();
        started.Task.GetAwaiter().GetResult();
        _process.StandardInput.Close();
        _process.OutputDataReceived += static (_, _) => { };
        _process.BeginOutputReadLine();
        _errors = Task.Run(_process.StandardError.ReadToEnd);
    }

    public string DirectoryPath { get; }

    public bool HasExited => _process.HasExited;

    /// <summary>What QEMU wrote to standard error; empty as long as it runs.</summary>
    public string Errors => HasExited && _errors.Wait(TimeSpan.FromSeconds(5)) ? _errors.Result.Trim() : string.Empty;

    /// <summary>Waits for the end of QEMU; false if it goes on.</summary>
    public bool EndsWithin(TimeSpan timeout)
    {
        return _process.WaitForExit(timeout);
    }

    /// <summary>Connects to a socket that QEMU is about to create.</summary>
    public Socket Connect(string path)
    {
        Stopwatch clock = Stopwatch.StartNew();
        while (true)
        {
            Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(path));
                return socket;
            }
            catch (SocketException exception)
            {
                socket.Dispose();
                if (HasExited || clock.Elapsed > TimeSpan.FromSeconds(30))
                {
                    throw new InvalidOperationException($"QEMU did not come up. {Errors}", exception);
                }

                Thread.Sleep(20);
            }
        }
    }

    public void Dispose()
    {
        try
        {
            _process.Kill();
            _process.WaitForExit(TimeSpan.FromSeconds(20));
        }
        catch (InvalidOperationException)
        {
            // It has ended by itself.
        }

        _process.Dispose();
        Directory.Delete(DirectoryPath, recursive: true);
    }

    private void Watch(TaskCompletionSource started)
    {
        try
        {
            _process.Start();
        }
        catch (Exception exception) when (exception is System.ComponentModel.Win32Exception or InvalidOperationException)
        {
            started.SetException(exception);
            return;
        }

        started.SetResult();
        try
        {
            _process.WaitForExit();
        }
        catch (InvalidOperationException)
        {
            // Disposed meanwhile, which comes after the end of QEMU.
        }
    }
}
