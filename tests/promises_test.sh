#!/bin/sh
# promises_test.sh PROMISES CTEST BUILD_DIR TEST_EXECUTABLE...
# Every row `| promise | test | what was broken to see it fail |` of PROMISES must name, in backticks, at least one test,
# and only tests that exist: test cases of the executables or names that ctest knows. Exit code 77: no such file.
set -eu
promises=$1
ctest=$2
build=$3
shift 3
if [ ! -f "$promises" ]; then
  echo "skipped: no $(basename "$promises")"
  exit 77
fi

known=$(mktemp)
trap 'rm -f "$known"' EXIT
(cd "$build" && "$ctest" -N) | sed -n 's/^ *Test *#[0-9]*: //p' >"$known"
for executable in "$@"; do
  # Catch2 3, else 2; 2 answers with the number of tests as its exit code.
  "$executable" --list-tests --verbosity quiet >>"$known" 2>/dev/null || true
  "$executable" --list-test-names-only >>"$known" 2>/dev/null || true
done

awk -F '|' '
  function fault(text) { printf "line %d: %s\n", FNR, text; faults++ }
  NR == FNR { sub(/^[ \t]+/, ""); sub(/[ \t]+$/, ""); known[$0] = 1; next }
  !/^[ \t]*\|/ { next }
  $2 ~ /^[ \t]*promise[ \t]*$/ || $2 ~ /^[ \t]*:?-+:?[ \t]*$/ { next }
  {
    rows++
    tests = $3
    named = 0
    while (match(tests, /`[^`]+`/)) {
      name = substr(tests, RSTART + 1, RLENGTH - 2)
      tests = substr(tests, RSTART + RLENGTH)
      named++
      if (!(name in known)) fault("no test is called \"" name "\"")
    }
    if (named == 0) fault("names no test:" $2)
    if ($4 ~ /^[ \t]*$/) fault("does not say what was broken to see it fail:" $2)
  }
  END {
    printf "%d promises, %d faults\n", rows, faults
    exit rows == 0 || faults > 0
  }' "$known" "$promises"
