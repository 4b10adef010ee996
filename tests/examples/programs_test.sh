#!/bin/sh
# sh programs_test.sh GENERATE EXTRAPOLATE MODELS TEXTS: what the two programs print, and how they fail.
# Exit code 77: skipped, no model.
set -u
generate=$1 extrapolate=$2 models=$3 texts=$4

for file in "$models/stories260K.bin" "$models/tok512.bin" "$texts/tinystories.txt"; do
  [ -f "$file" ] || { echo "skipped: no $file"; exit 77; }
done

here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
cp "$models/stories260K.bin" "$here/model" && cp "$models/tok512.bin" "$here/tokenizer"
head -c 100000 "$here/model" >"$here/cut_model"
head -c 100 "$here/tokenizer" >"$here/cut_tokenizer"
head -c 2000 "$texts/tinystories.txt" >"$here/short_text"
failures=0

complain() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# refuses MESSAGE COMMAND...: exit code 1, nothing on standard output, one line with the message on standard error
refuses() {
  message=$1
  shift
  "$@" >"$here/out" 2>"$here/err"
  code=$?
  [ $code -eq 1 ] || complain "exit code $code instead of 1: $*"
  [ ! -s "$here/out" ] || complain "something on standard output: $*"
  [ "$(wc -l <"$here/err")" -eq 1 ] || complain "not one line on standard error: $*"
  grep -qF "$message" "$here/err" || complain "no '$message' but '$(cat "$here/err")': $*"
}

write() { "$generate" --model "$here/model" --tokenizer "$here/tokenizer" "$@" 2>"$here/err"; }
read_text() { "$extrapolate" --model "$here/model" --tokenizer "$here/tokenizer" "$@" 2>"$here/err"; }

refuses "generate: cannot read $here/none" "$generate" --model "$here/none" --tokenizer "$here/tokenizer"
refuses "generate: $here/cut_model is damaged" "$generate" --model "$here/cut_model" --tokenizer "$here/tokenizer"
refuses "generate: $here/tokenizer is not a llama2.c model" "$generate" --model "$here/tokenizer" --tokenizer "$here/tokenizer"
refuses "generate: $here/cut_tokenizer is not a tokenizer" "$generate" --model "$here/model" --tokenizer "$here/cut_tokenizer"
refuses "extrapolate: cannot read $here/none" "$extrapolate" --model "$here/model" --tokenizer "$here/tokenizer" --text "$here/none"
refuses "is too short" "$extrapolate" --model "$here/model" --tokenizer "$here/tokenizer" --text "$here/short_text"
refuses "extrapolate: cannot write" "$extrapolate" --model "$here/model" --tokenizer "$here/tokenizer" \
  --text "$texts/tinystories.txt" --csv "$here/none/table.csv"

story='Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball.'
text=$(write --steps 200 --temperature 0) || complain "generate fails"
case $text in
  "$story"*) ;;
  *) complain "not the known text: $text" ;;
esac
grep -q 'tokens/s' "$here/err" || complain "no tokens per second on standard error"
# 60 tokens are the prompt's and those written after it: the same text, wherever the prompt ends.
[ "$(write --steps 60)" = "$(write --steps 60 --prompt 'Once upon a time, there')" ] || complain "a prompt changes the text"
[ "$(write --steps 80 --threads 2)" = "$(write --steps 80)" ] || complain "threads change the text"
[ "$(write --steps 80 --temperature 1 --seed 7)" = "$(write --steps 80 --temperature 1 --seed 7)" ] ||
  complain "the same seed gives another text"
[ "$(write --steps 80 --temperature 1 --seed 7)" != "$(write --steps 80 --temperature 1 --seed 8)" ] ||
  complain "another seed gives the same text"
[ "$(write --steps 60 --cache int8)" = "$(write --steps 60)" ] || complain "a cache of int8 changes the first tokens"
write --steps 600 --ignore-end --rope yarn --log-n >/dev/null || complain "generate stops at the training length"

# Inside the window a scheme with a window writes plain RoPE's text; beyond, its own. Without one asked for, the window
# is half the training length, and the training length for `window`.
first=$(write --steps 60)
write --steps 600 --ignore-end >"$here/rope"
for scheme in rerope leaky_rerope self_extend window; do
  write --steps 600 --ignore-end --rope $scheme --window 64 >"$here/out" || complain "generate fails with $scheme"
  [ "$(head -c ${#first} "$here/out")" = "$first" ] || complain "$scheme changes the text inside its window"
  cmp -s "$here/out" "$here/rope" && complain "$scheme changes nothing beyond its window"
  [ $scheme = window ] && window=512 || window=256
  [ "$(write --steps 600 --ignore-end --rope $scheme)" = "$(write --steps 600 --ignore-end --rope $scheme --window $window)" ] ||
    complain "$scheme does not take $window for its window"
done
write --rope yarn --window 64 >/dev/null && complain "a window is taken where there is none"
grep -q '^--window: goes with --rope rerope' "$here/err" || complain "no reason why a window is refused: $(cat "$here/err")"

# The text's losses by position, the prompt's tokens not counted.
write --steps 600 --ignore-end --rope rerope --window 256 >/dev/null || complain "generate fails with rerope"
for range in 0-256 256-512 512-600; do
  grep -q "^  $range  *[0-9][0-9]*\.[0-9]*$" "$here/err" || complain "no loss at positions $range: $(cat "$here/err")"
done
prompt=$(head -c 1000 "$texts/tinystories.txt")  # 256 to 512 tokens
write --steps 600 --ignore-end --prompt "$prompt" >/dev/null || complain "generate fails with a prompt"
grep -q '^  256-512 ' "$here/err" || complain "no losses after the prompt"
grep -q '^  0-256 ' "$here/err" && complain "losses of the prompt"
write --steps 200 --prompt "$prompt" >/dev/null || complain "generate fails with a prompt longer than the text"
grep -q 'its own text' "$here/err" && complain "losses where nothing was written"

read_text --text "$texts/tinystories.txt" --length 700 --windows 1 --csv "$here/table.csv" >"$here/out" || complain "extrapolate fails"
[ "$(head -n 1 "$here/table.csv")" = 'method,0-256,256-512,512-700' ] || complain "header: $(head -n 1 "$here/table.csv")"
rows='rope rope+logn linear linear+logn ntk_aware ntk_aware+logn ntk_old ntk_old+logn ntk_fixed ntk_fixed+logn'
rows="$rows ntk_mixed ntk_mixed+logn yarn yarn+logn rerope rerope+logn leaky_rerope self_extend window"
[ "$(cut -d, -f1 "$here/table.csv" | sed 1d | tr '\n' ' ')" = "$rows " ] || complain "rows of the CSV"
[ "$(grep -c '^[a-z_]*\(+logn\)\{0,1\},[0-9.]*,[0-9.]*,[0-9.]*$' "$here/table.csv")" -eq 19 ] || complain "not 19 rows of numbers"
[ ! -s "$here/err" ] || complain "a progress bar without a terminal"
grep -q '^rope+logn  *1\.' "$here/out" || complain "no table on standard output"
read_text --text "$texts/tinystories.txt" --length 700 --windows 1 --cache int8 --csv "$here/bytes.csv" >"$here/out" ||
  complain "extrapolate fails with a cache of int8"
cmp -s "$here/bytes.csv" "$here/table.csv" && complain "a cache of int8 changes nothing"
paste -d, "$here/bytes.csv" "$here/table.csv" |
  awk -F, '$1 == "rope" { for (i = 2; i <= 4; ++i) if ($i - $(i + 4) > 0.005 || $(i + 4) - $i > 0.005) exit 1 }' ||
  complain "a cache of int8 changes RoPE's loss by more than 0.005"
read_text --text "$texts/tinystories.txt" --length 700 --windows 1 --rerope-window 700 --csv "$here/wide.csv" >"$here/out" ||
  complain "extrapolate fails with a wide window"
[ "$(grep '^rerope,' "$here/wide.csv" | cut -d, -f2-)" = "$(grep '^rope,' "$here/wide.csv" | cut -d, -f2-)" ] ||
  complain "rerope with a window of the whole length is not rope"

[ "$failures" -eq 0 ] && echo "all as it should be"
exit $((failures > 0))
