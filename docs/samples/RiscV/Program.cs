// With no argument the built-in program, else an ELF file: dotnet run -c Release --project docs/samples/RiscV [program]
using System.Globalization;
using RiscV.Demo;
using RiscV.Host;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
GuestImage? image;
if (args.Length == 0)
{
    image = BuiltInProgram.Create();
}
else if (!ElfReader.TryRead(await File.ReadAllBytesAsync(args[0]), out image, out string? error))
{
    Console.Error.WriteLine($"{args[0]}: {error}");
    return 1;
}

return new Tour(image, Console.Out).Run() ? 0 : 1;
