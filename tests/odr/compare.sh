#!/bin/sh
# compare.sh ALONE_SSE2 ALONE_AVX2 BOTH...
# Each program BOTH must print exactly the two lines that the programs with one unit print.
set -eu
status=0
sse2=$("$1") || status=$?
[ "$status" -eq 0 ] || exit "$status"
avx2=$("$2")
shift 2
if [ "${sse2#* }" = "${avx2#* }" ]; then
  echo "the two instruction sets give equal bits: this test would see nothing"
  exit 1
fi
for both in "$@"; do
  together=$("$both")
  if [ "$together" != "$sse2
$avx2" ]; then
    printf 'alone:\n%s\n%s\n%s:\n%s\n' "$sse2" "$avx2" "$(basename "$both")" "$together"
    exit 1
  fi
done
printf '%s\n%s\n' "$sse2" "$avx2"
