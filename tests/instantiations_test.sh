#!/bin/sh
# instantiations_test.sh BUILD_DIR MOST: how often the pass is instantiated in all test objects, and how long they took to
# compile. Fails if it is more than MOST, or if it cannot be counted.
set -eu
build=$1
most=$2

objects=$(find "$build/tests" -name '*.o' -path '*heed_test_*')
[ -n "$objects" ] || {
  echo "no test objects under $build/tests"
  exit 1
}

count=0
for object in $objects; do
  here=$(nm "$object" | grep -cE ' [tTwW] _ZN4heed.*4passI.*4walkILb0EEEvl$' || true)
  [ "$here" -eq 0 ] || printf '%4d  %s\n' "$here" "$(basename "$object" .cpp.o)"
  count=$((count + here))
done

if [ -f "$build/.ninja_log" ]; then
  # start, end (ms), mtime, output, hash; the last entry of an output counts
  awk -F'\t' '$4 ~ /heed_test_.*\.o$/ { ms[$4] = $2 - $1 } END { for (o in ms) sum += ms[o]; printf "%d s to compile the tests (less what a cache had)\n", sum / 1000 }' "$build/.ninja_log"
fi
echo "$count instantiations of the pass, at most $most"
[ "$count" -gt 0 ] && [ "$count" -le "$most" ]
