using PvPatch.Tool;

using var interruption = new Interruption();
return (int)ToolApplication.Run(args, ToolConsole.OfProcess(interruption.Token));
