using Iced.Intel;
using PvPatch.Live;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>Sites of keys, branches, calls, constants and variants, each with what stands around it.</summary>
internal sealed class SettingSites(SettingCode code, TortureOptions options, Random random)
{
    public void Emit(SiteKind kind, SitePlace place)
    {
        switch (kind)
        {
            case SiteKind.Keys when place.Index % 4 == 3:
                EmitPair(place);
                break;
            case SiteKind.Keys:
                EmitKey(place);
                break;
            case SiteKind.Branches:
                EmitBranch(place);
                break;
            case SiteKind.Calls:
                EmitCall(place);
                break;
            case SiteKind.Constants:
                EmitConstant(place);
                break;
            default:
                EmitVariants(place);
                break;
        }
    }

    private void EmitKey(SitePlace place)
    {
        Assembler a = place.Assembler;
        int key = random.Next(code.Keys.Length);
        BranchHint hint = (BranchHint)(place.Index & 1);
        Label[] jumps = hint == BranchHint.Unlikely ? [default, a.CreateLabel()] : [a.CreateLabel(), default];
        CheckedSite.Before(a, key, place.Number);
        place.Sites.Branch(a, code.Keys[key], jumps[hint == BranchHint.Unlikely ? 1 : 0], hint, random.Next(2) == 0 ? 2 : 5);
        Land(a, jumps);
        CheckedSite.Behind(a, key, SettingCounts.Key, 2, place.Leave, keepsCarry: true);
    }

    private void EmitPair(SitePlace place)
    {
        Assembler a = place.Assembler;
        int pair = random.Next(code.Keys.Length / 2);
        Label[] states = [default, a.CreateLabel(), a.CreateLabel(), a.CreateLabel()];
        CheckedSite.Before(a, code.PairWord + pair, place.Number);
        place.Sites.Branch(a, [code.Keys[2 * pair], code.Keys[2 * pair + 1]], states);
        Land(a, states);
        CheckedSite.Behind(a, code.PairWord + pair, SettingCounts.Pair, states.Length, place.Leave, keepsCarry: true);
    }

    private void EmitBranch(SitePlace place)
    {
        Assembler a = place.Assembler;
        int branch = random.Next(code.Branches.Length);
        Label[] ways = [.. Enumerable.Range(0, SettingCounts.Ways + 1).Select(i => i == 0 ? default : a.CreateLabel())];
        Label[] given = [.. ways.Skip(1)];
        given[SettingCounts.Ways / 2] = options.Protocol == Protocol.LabelLeftOut ? default : given[SettingCounts.Ways / 2];
        CheckedSite.Before(a, code.BranchWord + branch, place.Number);
        place.Sites.Branch(a, code.Branches[branch], given, random.Next(2) == 0 ? 2 : 5);
        Land(a, ways);
        CheckedSite.Behind(a, code.BranchWord + branch, SettingCounts.Branch, ways.Length, place.Leave, keepsCarry: true);
    }

    /// <summary>A call in each form; those that are the last or first thing of a function stand in one.</summary>
    private void EmitCall(SitePlace place)
    {
        (Assembler a, SiteEmitter sites) = (place.Assembler, place.Sites);
        int number = random.Next(code.Calls.Length);
        StaticCall call = code.Calls[number];
        CheckedSite.Before(a, code.CallWord + number, place.Number, SettingCounts.Nothing);
        if (place.Index % 4 == 0)
        {
            sites.Call(a, call);
        }
        else
        {
            Label function = a.CreateLabel();
            a.call(function);
            place.Functions.Add(() =>
            {
                a.Label(ref function);
                switch (place.Index % 4)
                {
                    case 1:
                        sites.Jump(a, call);
                        break;
                    case 2:
                        sites.JumpIf(a, ConditionCode.b, call); // the carry is set: it always goes
                        a.ud2();
                        break;
                    default:
                        sites.Entry(a, call);
                        a.ret();
                        break;
                }
            });
        }

        CheckedSite.Behind(
            a, code.CallWord + number, SettingCounts.Call, SettingCounts.Nothing + 1, place.Leave, keepsCarry: false);
    }

    private void EmitConstant(SitePlace place)
    {
        Assembler a = place.Assembler;
        CheckedSite.Before(a, code.ConstantWord, place.Number);
        place.Sites.Constant(a, code.Constant, (place.Index % 3) switch
        {
            0 => static b => b.mov(eax, 0),
            1 => static b => b.mov(rax, 0L), // ten bytes
            _ => static b => b.lea(eax, __[rax + int.MaxValue]),
        });
        CheckedSite.Behind(a, code.ConstantWord, SettingCounts.Constant, SettingCode.ConstantValues, place.Leave, keepsCarry: true);
    }

    private void EmitVariants(SitePlace place)
    {
        Assembler a = place.Assembler;
        CheckedSite.Before(a, code.OpWord, place.Number);
        place.Sites.Variants(
            a, new SiteVariant(code.Backends.All[0], static b => b.mov(eax, 0)),
            new SiteVariant(code.Backends.All[1], static b => b.mov(eax, 1)),
            new SiteVariant(code.Backends.All[2], static b => b.mov(eax, 2)),
            new SiteVariant(code.Backends.All[3], static b =>
            {
                b.lea(eax, __[rax + 1]);
                b.lea(eax, __[rax + 2]);
            }));
        CheckedSite.Behind(a, code.OpWord, SettingCounts.Variant, SettingCounts.Backends, place.Leave, keepsCarry: true);
    }

    /// <summary>Where the labels lead: eax says which it was; behind the site itself it is the one that is no label.</summary>
    private static void Land(Assembler a, Label[] labels)
    {
        Label over = a.CreateLabel();
        int falls = Array.FindIndex(labels, static l => l.IsEmpty);
        a.mov(eax, falls);
        for (int i = 0; i < labels.Length; i++)
        {
            if (!labels[i].IsEmpty)
            {
                a.jmp(over);
                a.Label(ref labels[i]);
                a.mov(eax, i);
            }
        }

        a.Label(ref over);
    }
}
