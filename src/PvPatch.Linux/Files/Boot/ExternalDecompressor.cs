using System.ComponentModel;
using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Unpacks through a program of the system: compressed bytes go in by one pipe while unpacked bytes come out by another. Both
/// are pumped at the same time, since each side stops when its pipe is full.
/// </summary>
internal static class ExternalDecompressor
{
    // Variables through which a user changes what these programs do; the result must not depend on them.
    private static readonly string[] s_optionVariables = [
        "XZ_DEFAULTS", "XZ_OPT", "ZSTD_CLEVEL", "ZSTD_NBTHREADS", "BZIP", "BZIP2", "LZOP"];

    public static bool TryRun(
        CompressionFormat format, ReadOnlyMemory<byte> input, OutputBuffer output, UnpackLimits options,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (!TryStart(format, options, out Process? process, out error))
        {
            return false;
        }

        using (process)
        {
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            limit.CancelAfter(options.TimeLimit);
            using CancellationTokenRegistration registration = limit.Token.Register(() => Kill(process));
            Task feeding = StartTask(() => Feed(process, input));
            Task<string> complaints = StartTask(() => ReadComplaints(process));
            bool complete = false;
            try
            {
                complete = TryDrain(process, output, input.Length, out error);
            }
            finally
            {
                if (!complete)
                {
                    Kill(process);
                }

                // The limit still stands here: a program that closes its output but never ends is killed by it.
                process.WaitForExit();
                Task.WaitAll(feeding, complaints);
            }

            cancellationToken.ThrowIfCancellationRequested();
            return complete && TryJudge(format, process.ExitCode, complaints.Result, limit.IsCancellationRequested, options, out error);
        }
    }

    private static bool TryStart(CompressionFormat format, UnpackLimits options, [NotNullWhen(true)] out Process? process,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        process = null;
        error = null;
        if (!ProgramFinder.TryFind(format.Program, options.ProgramSearchPath, out string? path))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.DecompressorMissing,
                $"The kernel is compressed with {format.Compression}, and the program {format.Program} is not installed") with
            {
                Expected = $"{format.Program} in a directory of PATH",
                Help = $"Install it (Debian and Ubuntu: apt install {format.Package})",
            };
            return false;
        }

        var start = new ProcessStartInfo(path)
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (string argument in format.Arguments)
        {
            start.ArgumentList.Add(argument);
        }

        foreach (string variable in s_optionVariables)
        {
            start.Environment.Remove(variable);
        }

        start.Environment["LC_ALL"] = "C";
        try
        {
            process = Process.Start(start);
        }
        catch (Exception exception) when (exception is Win32Exception or IOException)
        {
            error = Failed(format, $"The program {path} cannot be started", exception.Message);
            return false;
        }

        if (process is null)
        {
            error = Failed(format, $"The program {path} cannot be started", "no process");
            return false;
        }

        return true;
    }

    private static Task StartTask(Action action) =>
        Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static Task<T> StartTask<T>(Func<T> function) =>
        Task.Factory.StartNew(function, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static void Feed(Process process, ReadOnlyMemory<byte> input)
    {
        try
        {
            process.StandardInput.BaseStream.Write(input.Span);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // The program ended before it had read everything; its exit code says why.
        }
    }

    private static string ReadComplaints(Process process)
    {
        char[] kept = new char[1024];
        int length = process.StandardError.ReadBlock(kept, 0, kept.Length);
        char[] rest = new char[1024];
        while (process.StandardError.Read(rest, 0, rest.Length) > 0)
        {
            // Read on so that the program never waits for room; only the first complaint is shown.
        }

        return new string(kept, 0, length).Trim().ReplaceLineEndings("; ");
    }

    private static bool TryDrain(
        Process process, OutputBuffer output, long compressedLength, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        Stream stream = process.StandardOutput.BaseStream;
        while (true)
        {
            int count = stream.Read(output.GetRoom().Span);
            if (count == 0)
            {
                error = null;
                return true;
            }

            if (!output.TryAdvance(count, compressedLength, out error))
            {
                return false;
            }
        }
    }

    private static bool TryJudge(CompressionFormat format, int exitCode, string complaints, bool timedOut, UnpackLimits options,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (exitCode == 0)
        {
            error = null;
            return true;
        }

        string found = complaints.Length == 0 ? $"exit code {exitCode}" : $"exit code {exitCode}: {complaints}";
        error = timedOut
            ? PatchDiagnostic.Error(KernelDiagnosticCodes.DecompressorTimeout, $"The program {format.Program} did not finish in time") with
            {
                Found = $"more than {options.TimeLimit.TotalSeconds} s",
                Help = $"On a slow machine raise {nameof(UnpackLimits.TimeLimit)}; else the file is damaged",
            }
            : PatchDiagnostic.Error(
                KernelDiagnosticCodes.PayloadCorrupt, $"The compressed kernel is damaged: {format.Program} refused it") with
            {
                Found = found,
                Expected = $"a whole {format.Compression} stream",
                Help = "Copy or download the file again",
            };
        return false;
    }

    private static PatchDiagnostic Failed(CompressionFormat format, string message, string found) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.DecompressorFailed, message) with
        {
            Found = found,
            Help = $"Install it again (Debian and Ubuntu: apt install --reinstall {format.Package})",
        };

    private static void Kill(Process process)
    {
        try
        {
            process.Kill(entireProcessTree: true);
        }
        catch (Exception exception) when (exception is InvalidOperationException or Win32Exception or AggregateException)
        {
            // It ended in the meantime.
        }
    }
}
