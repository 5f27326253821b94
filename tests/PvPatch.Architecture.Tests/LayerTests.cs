using System.Reflection;
using System.Text.RegularExpressions;
using PvPatch.Tests.Support;

namespace PvPatch.Architecture.Tests;

/// <summary>The layers point one way, in all three assemblies: read from the compiled code, method bodies included.</summary>
public sealed class LayerTests
{
    private const string Planted = "PvPatch.Architecture.Tests.Planted";

    // Layers of PvPatch.Linux. Three namespaces are one layer, as public types of each name those of another: a KernelImage says which
    // backends it can be planned for, those of KernelBackends; a BootMachine, of which they are made, has SlotOverrides (Text);
    // BootablePlan (Text) takes a KernelImage; KernelPlanner plans a PlacedModule (Modules), which has the KernelImage it lies in.
    private const string Files = "PvPatch.Linux.Files";
    private const string Symbols = "PvPatch.Linux.Symbols";
    private const string Tables = "PvPatch.Linux.Tables";
    private const string Eras = "PvPatch.Linux.Eras";
    private const string Layouts = "PvPatch.Linux.Layouts";
    private const string Kernel = "PvPatch.Linux PvPatch.Linux.Text PvPatch.Linux.Modules";
    private const string Dumps = "PvPatch.Linux.Dumps";
    private const string BootText = "PvPatch.Linux.BootText";
    private const string Verify = "PvPatch.Linux.Verify";

    private static readonly Assembly s_linux = Assembly.Load("PvPatch.Linux");
    private static readonly Assembly s_tool = Assembly.Load("PvPatch.Tool");

    private static readonly Layers s_engineLayers = new(
        typeof(PatchDiagnostic).Assembly,
        new Layer("PvPatch"), // Diagnostics
        new Layer("PvPatch.LazyModes", "PvPatch"),
        new Layer("PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Plans", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Analysis", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Mechanisms", "PvPatch.Analysis", "PvPatch.Plans", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Records", "PvPatch.Mechanisms", "PvPatch.Plans", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Paravirt", "PvPatch.Mechanisms", "PvPatch.Plans", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Locks", "PvPatch.Machine", "PvPatch.Images", "PvPatch"),
        new Layer("PvPatch.Live", "PvPatch.Locks", "PvPatch.Mechanisms", "PvPatch.Plans", "PvPatch.Machine", "PvPatch.Images", "PvPatch"));

    private static readonly Layers s_linuxLayers = new(
        s_linux,
        new Layer(Files),
        new Layer("PvPatch.Linux.Objects", Files),
        new Layer(Symbols, Files),
        new Layer(Tables, Symbols, Files),
        new Layer(Eras, Tables, Symbols, Files),
        new Layer(Layouts, Eras, Tables, Symbols, Files),
        new Layer(Kernel, Layouts, Eras, Tables, Symbols, Files),
        new Layer("PvPatch.Linux.Audit", Kernel, Layouts, Eras, Tables, Symbols, Files),
        new Layer(Dumps, Files),
        new Layer(BootText, Dumps, Kernel, Layouts, Eras, Tables, Symbols, Files),
        new Layer(Verify, BootText, Dumps, Kernel, Layouts, Eras, Tables, Symbols, Files));

    private static readonly Layers s_toolLayers = new(s_tool, new Layer("PvPatch.Tool"));

    private static readonly Layers s_planted = new(
        typeof(LayerTests).Assembly, new Layer(Planted + ".Lower"), new Layer(Planted + ".Upper", Planted + ".Lower"));

    public static TheoryData<string> Assemblies => ["PvPatch", "PvPatch.Linux", "PvPatch.Tool"];

    [Theory]
    [MemberData(nameof(Assemblies))]
    public void A_layer_uses_only_those_it_may(string assembly)
    {
        Layers layers = Of(assembly);
        Assert.Empty(layers.All.SelectMany(layers.Violations));
    }

    [Theory]
    [MemberData(nameof(Assemblies))]
    public void Every_layer_is_there_and_every_type_is_in_one(string assembly)
    {
        // A renamed layer must not pass unseen, nor a new one.
        Assert.Empty(Of(assembly).Empty());
        Assert.Empty(Of(assembly).Unclaimed());
    }

    [Theory]
    [MemberData(nameof(Assemblies))]
    public void Rules_point_one_way(string assembly)
    {
        // A layer may use only those named before it, so the rules themselves have no circle.
        Layers layers = Of(assembly);
        for (int i = 0; i < layers.All.Count; i++)
        {
            Assert.Subset(layers.All.Take(i).Select(static l => l.Namespaces).ToHashSet(), layers.All[i].MayUse.ToHashSet());
        }
    }

    [Theory]
    [MemberData(nameof(Assemblies))]
    public void A_file_names_only_layers_it_may(string assembly)
    {
        // Of a constant, and of what only a comment names, the compiled code shows nothing.
        string[] files = Directory.GetFiles(Repository.Path("src", assembly), "*.cs", SearchOption.AllDirectories);
        Layers layers = Of(assembly);
        Assert.Empty(files.SelectMany(f => layers.ViolationsInSource(File.ReadAllText(f)).Select(v => $"{f}: {v}")));
    }

    [Theory]
    [InlineData("using PvPatch.Live;", "PvPatch.Machine", true)]
    [InlineData("using PvPatch.Images;", "PvPatch.Machine", false)]
    [InlineData("using static PvPatch.Live.SiteRecord;", "PvPatch.Machine", true)]
    [InlineData("using Kept = PvPatch.Paravirt.LinuxRules;", "PvPatch.Mechanisms.Ops", true)]
    [InlineData("using PvPatch.Mechanisms;", "PvPatch.Live", false)]
    [InlineData("/// <see cref=\"PvPatch.Live.CodeArena\"/>", "PvPatch.Images", true)]
    public void A_use_in_source_is_found(string line, string name, bool isViolation) =>
        Assert.Equal(isViolation, s_engineLayers.ViolationsInSource($"{line}\n\nnamespace {name};\n").Any());

    [Fact]
    public void Assemblies_point_one_way()
    {
        Assert.Equal(["PvPatch"], OwnReferences(s_linux));
        Assert.Empty(OwnReferences(typeof(PatchDiagnostic).Assembly));
        Assert.Equal(["PvPatch", "PvPatch.Linux"], OwnReferences(s_tool));
    }

    [Theory]
    [InlineData("InABody")]
    [InlineData("InALambda")]
    [InlineData("InAnIterator")]
    [InlineData("InAnAsyncMethod")]
    [InlineData("AsAGenericArgument")]
    [InlineData("AsAGenericArgumentOfAMethod")]
    [InlineData("AsAToken")]
    [InlineData("AsAProperty")]
    [InlineData("AsAParameter")]
    [InlineData("AsAnAttribute")]
    [InlineData("InANestedType")]
    public void A_planted_use_is_found(string name) =>
        Assert.Contains(s_planted.Violations(s_planted.All[0]), v => Regex.IsMatch(v, $@"^{Regex.Escape(Planted)}\.Lower\.{name}\b"));

    [Fact]
    public void An_allowed_use_is_no_violation()
    {
        Assert.Empty(s_planted.Violations(s_planted.All[1]));
        Assert.DoesNotContain(s_planted.Violations(s_planted.All[0]), v => v.Contains("Innocent", StringComparison.Ordinal));
    }

    [Fact]
    public void A_renamed_layer_and_a_new_one_are_found()
    {
        var renamed = new Layers(typeof(LayerTests).Assembly, new Layer(Planted + ".Bottom"), new Layer(Planted + ".Upper"));
        Assert.Equal([Planted + ".Bottom"], renamed.Empty());
        Assert.Contains(Planted + ".Lower.Innocent", renamed.Unclaimed());
    }

    private static Layers Of(string assembly) => assembly switch
    {
        "PvPatch" => s_engineLayers,
        "PvPatch.Linux" => s_linuxLayers,
        _ => s_toolLayers,
    };

    private static string[] OwnReferences(Assembly assembly) =>
        [.. assembly.GetReferencedAssemblies().Select(static a => a.Name!)
            .Where(static n => n.StartsWith("PvPatch", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
}
