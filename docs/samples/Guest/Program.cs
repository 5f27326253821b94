// A guest that runs on bare hardware and four hypervisors: dotnet run -c Release --project docs/samples/Guest
using System.Globalization;
using PvGuest;
using PvGuest.Machine;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
return Report.Run(Console.Out, Console.Error, EmulatedCpu.IsAvailable);
