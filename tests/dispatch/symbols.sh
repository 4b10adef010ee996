#!/bin/sh
# symbols.sh NM OBJECT...: each object defines exactly one symbol for the linker, its table.
set -eu
nm=$1
shift
for object in "$@"; do
  defined=$("$nm" --extern-only --defined-only "$object" | awk 'NF { print $NF }')
  echo "$(basename "$object"): $defined"
  case $defined in
    heed_dispatch_test_kernels_*[!a-z0-9_]* | '') exit 1 ;;
    heed_dispatch_test_kernels_*) ;;
    *) exit 1 ;;
  esac
done
