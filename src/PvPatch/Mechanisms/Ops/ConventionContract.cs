using Iced.Intel;
using PvPatch.Analysis;
using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>
/// Whether an operation keeps to its slot's convention, and whether calls can be brought from the slot's convention to the target's.
/// </summary>
/// <remarks>
/// What is held to it:
/// <code>
/// operation                    standard conventions     a host's own
/// identity                     as it is                 there is an argument and a result
/// body                         as it is, site by site   destroys no more; uses a stack only where there is one
/// target with a convention     arguments and result have registers in both
/// target, destroys said        believed, the difference saved by a thunk
/// target, nothing said         keeps the convention     what its code destroys is computed, and is no more
/// caller's address             an argument the target has, at a slot that is called
/// </code>
/// </remarks>
internal static class ConventionContract
{
    private const int MostInstructions = 100_000; // of a target's code, each counted as often as it is walked

    /// <summary>What can be said of an operation without looking at its target's code.</summary>
    public static PatchDiagnostic? Check(OpSlot slot, Operation operation, TemplateStore templates, int bitness) =>
        CheckCall(slot, operation, bitness) ?? (slot.Convention.IsOfHost ? CheckOwn(slot, operation, templates, bitness) : null);

    /// <summary>Whether all targets of a backend in an image keep to a host's own conventions.</summary>
    public static void CheckTargets(Backend backend, CodeImage image, DiagnosticList found)
    {
        foreach (OpSlot slot in backend.Layout.Slots)
        {
            if (CheckTarget(slot, backend[slot.Index], image) is PatchDiagnostic broken)
            {
                found.Add(broken);
            }
        }
    }

    /// <summary>Whether an operation's target keeps to a host's own convention.</summary>
    public static PatchDiagnostic? CheckTarget(OpSlot slot, Operation operation, CodeImage? code) =>
        operation.Target is VirtualAddress target
            ? CheckTarget(slot, target, operation.TargetDestroys is not null || operation.TargetConvention is not null, code) : null;

    /// <summary>
    /// Whether a target keeps to a host's own convention: computed from its code where nothing was said of it.
    /// </summary>
    /// <param name="slot">The slot.</param>
    /// <param name="target">The target.</param>
    /// <param name="isSaid">Whether what the target destroys, or its convention, was said.</param>
    /// <param name="code">The code at the target; <see langword="null"/> where it can't be read.</param>
    public static PatchDiagnostic? CheckTarget(OpSlot slot, VirtualAddress target, bool isSaid, CodeImage? code)
    {
        if (isSaid || !slot.Convention.IsOfHost || slot.Kind != SlotKind.Call)
        {
            return null;
        }

        const string Help = "Say what it destroys (Operation.Call, destroys) or what its convention is (Operation.CalledBy).";
        if (code?.Find(target, 1) is null)
        {
            return Broken(slot, "nothing says that the target keeps to it") with { Address = target, Help = Help };
        }

        var analyzer = new CodeAnalyzer(code, null, MostInstructions);
        FunctionEffects effects = analyzer.EffectsOf(target);
        RegisterSet excess = effects.Destroys.Except(slot.Convention.DestroyedBy(code.Bitness));
        if (effects.Undecided is PatchDiagnostic undecided)
        {
            return Broken(slot, "what the target destroys can't be computed") with
            {
                Address = undecided.Address ?? target,
                Found = undecided.Message,
                Help = Help,
            };
        }

        if (!effects.IsStackBalanced)
        {
            return Broken(slot, "the target leaves the stack pointer moved") with { Address = target };
        }

        if (excess.IsEmpty)
        {
            return null;
        }

        VirtualAddress? writer = analyzer.FirstWriterOf(target, excess);
        string where = writer is VirtualAddress at ? $"{Decode(code, at)} at {at}" : "a function that it calls";
        return Broken(slot, $"the target destroys {excess.ToString(code.Bitness)}: {where}") with
        {
            Address = writer ?? target,
            Expected = Allowed(slot, code.Bitness),
            Help = "Say what the target destroys (Operation.Call, destroys), and a thunk saves what the convention keeps.",
        };
    }

    private static PatchDiagnostic? CheckCall(OpSlot slot, Operation operation, int bitness)
    {
        if (operation.Target is not VirtualAddress target || (operation.TargetConvention is null && operation.CallerArgument is null))
        {
            return null;
        }

        ThunkCode call = operation.CallOf(target, slot.Convention);
        string? wrong = slot.Kind == SlotKind.Jump || operation.Kind == OperationKind.Jump
            ? "code jumps to the target, and no thunk can stand between"
            : operation.CallerArgument is int caller && caller >= call.Convention.ArgumentNumbers(bitness).Length
                ? $"the target has no register for argument {caller}"
            : slot.Convention.IsOfHost
                && slot.Convention.ArgumentNumbers(bitness).Length > call.Convention.ArgumentNumbers(bitness).Length
                ? $"the target's convention {call.Convention} has fewer arguments in registers"
            : slot.Convention.ResultNumber >= 0 && call.Convention.ResultNumber < 0
                ? $"the target's convention {call.Convention} has no result"
            : null;
        return wrong is null ? null : Broken(slot, wrong) with { Address = target };
    }

    private static PatchDiagnostic? CheckOwn(OpSlot slot, Operation operation, TemplateStore templates, int bitness)
    {
        CallConvention convention = slot.Convention;
        if (operation.Kind is OperationKind.Identity32 or OperationKind.Identity64
            && (convention.ResultNumber < 0 || convention.ArgumentNumbers(bitness).IsEmpty))
        {
            return Broken(slot, "an identity needs an argument and a result");
        }

        if (operation.Body is not InlineBody body || body == InlineBody.Nothing)
        {
            return null;
        }

        AssembledBody built = templates.Body(body, convention);
        RegisterSet allowed = convention.DestroyedBy(bitness);
        RegisterSet excess = built.Destroys.Except(allowed);
        if (excess.IsEmpty && (convention.HasStack || !built.UsesStack))
        {
            return null;
        }

        string where = "";
        foreach ((Instruction instruction, RegisterSet destroys, bool usesStack) in BodyReader.EffectsOfEach(
            built, body.DestroyedByCalls ?? allowed))
        {
            if (excess.IsEmpty ? usesStack : !(destroys & excess).IsEmpty)
            {
                where = $": {Text(instruction)} at +{instruction.IP}";
                break;
            }
        }

        return Broken(slot, (excess.IsEmpty ? "the body uses the stack" : $"the body destroys {excess.ToString(bitness)}") + where) with
        {
            Found = HexBytes.Format(built.Bytes.Span),
            Expected = Allowed(slot, bitness),
        };
    }

    private static string Allowed(OpSlot slot, int bitness) =>
        $"{slot.Convention.DestroyedBy(bitness).ToString(bitness)}{(slot.Convention.HasStack ? "" : ", no stack")}";

    private static string Decode(CodeImage code, VirtualAddress address)
    {
        CodeSegment segment = code.Find(address, 1)!;
        ReadOnlySpan<byte> bytes = segment.Bytes.Span[(int)(address - segment.Address)..];
        byte[] instruction = bytes[..Math.Min(SiteBytes.LongestInstruction, bytes.Length)].ToArray();
        var decoder = Decoder.Create(code.Bitness, instruction, address.Value);
        return Text(decoder.Decode());
    }

    private static string Text(in Instruction instruction)
    {
        var output = new StringOutput();
        var options = new FormatterOptions { SpaceAfterOperandSeparator = true, HexPrefix = "0x", HexSuffix = null };
        new IntelFormatter(options).Format(instruction, output);
        return output.ToStringAndReset();
    }

    private static PatchDiagnostic Broken(OpSlot slot, string why) =>
        PatchDiagnostic.Error(
            DiagnosticCodes.ConventionBroken, $"the operation of {slot} does not keep to its convention {slot.Convention}: {why}") with
        {
            Source = slot.Name,
        };
}
