using System.Globalization;
using BenchmarkDotNet.Running;
using PvPatch.Benchmarks;
using PvPatch.Benchmarks.Live;

if (args is ["readers", string image])
{
    return Readers.Run(image);
}

if (args is ["live", ..])
{
    return LiveRun.Run(args.AsSpan(1));
}

if (args is ["callbacks", ..])
{
    return CallbackSpeed.Run(args.AsSpan(1));
}

if (args is ["settings", ..])
{
    return SettingRun.Run(args.AsSpan(1));
}

if (args is ["host", ..])
{
    return HostSpeed.Run(args.AsSpan(1));
}

if (args is ["qemu", ..])
{
    return QemuSpeed.Run(args.AsSpan(1));
}

if (args is ["recipes", ..])
{
    return RecipeSpeed.Run(args.AsSpan(1));
}

if (args is ["lazy", ..])
{
    return LazyRun.Run(args.AsSpan(1));
}

if (args is not ["ratios", ..])
{
    Console.WriteLine($"C loop: {CLoop.Description}");
    BenchmarkSwitcher.FromTypes([CLoop.IsThere ? typeof(AgainstCLoop) : typeof(AgainstEncoder)])
        .Run(args.Length == 0 ? ["--filter", "*"] : args);
    return 0;
}

int rounds = 100;
int sites = Workload.DefaultSites;
Shape[] shapes = Enum.GetValues<Shape>();
for (int i = 1; i < args.Length; i += 2)
{
    string value = i + 1 < args.Length ? args[i + 1] : "";
    bool understood = args[i] switch
    {
        "--rounds" => int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0,
        "--sites" => int.TryParse(value, CultureInfo.InvariantCulture, out sites) && sites > 0,
        "--shape" => Enum.TryParse(value, ignoreCase: true, out shapes[0]) && Enum.IsDefined(shapes[0]),
        _ => false,
    };
    if (!understood)
    {
        Console.Error.WriteLine("usage: ratios [--rounds N] [--sites N] [--shape even|kernel|clobbers]");
        return 2;
    }

    shapes = args[i] == "--shape" ? [shapes[0]] : shapes;
}

return Ratios.Run(shapes, rounds, sites);
