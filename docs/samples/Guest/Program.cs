using Guest;
using Guest.Hypervisors;
using Guest.Kernel;

foreach (int bitness in (int[])[32, 64])
{
    GuestImage image = GuestKernel.Assemble(bitness);
    foreach (Hypervisor h in Hypervisor.All(bitness))
    {
        foreach (Patching p in Enum.GetValues<Patching>())
        {
            GuestRun run = GuestRun.Of(image, Hypervisor.Create(h.Name, bitness), p);
            Console.WriteLine($"{bitness} {h.Name} {p} {run.Costs} remap {run.RemapHypercalls} switch {run.SwitchHypercalls}/{run.Switches}");
            Console.WriteLine(run.Output);
            Console.WriteLine("MODEL " + run.Batches.SequenceEqual(run.ModelBatches) + " " + run.Batches.Count + " " + run.ModelBatches.Count);
            Console.WriteLine("BODIES " + string.Join(" ", run.Bodies.Select(b => b.Key + "=" + b.Value)));
        }
    }
}
