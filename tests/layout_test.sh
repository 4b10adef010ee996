#!/bin/sh
# layout_test.sh INCLUDE_DIR
# The rules of the house that a script can see: no header over 600 lines; includes go one way, down the ranks; the
# reference stands on core and the frequencies alone; the front door names no position encoding.
set -eu
cd "$1"

find . -name '*.hpp' | sed 's|^\./||' | LC_ALL=C sort | xargs awk '
  function rank(folder) {
    if (folder == "core") return 1
    if (folder == "kernel") return 2
    if (folder == "position") return 3
    if (folder == "attention") return 4
    return folder == "" ? 0 : 5
  }
  function folder_of(path) { return path ~ /\// ? substr(path, 1, index(path, "/") - 1) : "" }
  function fault(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; faults++ }
  FNR == 601 { fault("more than 600 lines: split it by noun") }
  FNR == 1 { headers++ }
  /^[ \t]*#[ \t]*include[ \t]*[<"]heed\// {
    included = $0
    sub(/^[^<"]*[<"]heed\//, "", included)
    sub(/[>"].*$/, "", included)
    from = folder_of(FILENAME)
    to = folder_of(included)
    if (from == "") next
    if (from == "reference") {
      if (to != "" && to != "core" && to != "reference" && included != "position/frequencies.hpp")
        fault("the reference includes only core and position/frequencies.hpp, not " included)
    } else if (rank(to) > rank(from)) {
      fault(from " must not include " included ", which stands above it")
    }
    if (FILENAME == "attention/attention.hpp" && to == "position") fault("the front door names no position encoding")
  }
  END {
    printf "%d headers, %d faults\n", headers, faults
    exit faults > 0
  }'
