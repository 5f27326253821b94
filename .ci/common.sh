# Shared by the scripts beside it, which source it from the repository's root.

# The README's commands as they stand there, in order: the block after a line "<!-- run: NAME -->".
readme() { awk -v name="$1" '$0 == "<!-- run: " name " -->" {want=1; next} want && /^```/ {if (inside) exit; inside=1; next} inside {print}' README.md; }

# How many tests ended as Passed, Failed or Skipped, summed over the summary lines of `dotnet test` in a file.
count() { awk -v word="$1: +[0-9]+" 'match($0, word) {split(substr($0, RSTART, RLENGTH), part, /: +/); n += part[2]} END {print n + 0}' "$2"; }
