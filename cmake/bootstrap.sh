#!/bin/sh
# sh cmake/bootstrap.sh test [CMAKE ARGUMENT...]   builds everything for this machine and runs every test
# sh cmake/bootstrap.sh demo [--model FILE --tokenizer FILE [--text FILE]]   builds and runs the examples
# sh cmake/bootstrap.sh packages NAME...           installs these packages where they are missing
#
# On Debian and Ubuntu missing packages are installed by apt, as root or with sudo; elsewhere they are named.
# HEED_JOBS sets how many compilers run at a time (default: one a core).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/native
jobs=${HEED_JOBS:-$(nproc 2>/dev/null || echo 2)}

build_packages='g++ cmake ninja-build ccache libeigen3-dev libxsimd-dev'
demo_packages="$build_packages libcli11-dev nlohmann-json3-dev"
test_packages="$demo_packages catch2 libbenchmark-dev libopenblas-dev pkg-config"

fail() {
  echo "bootstrap: $*" >&2
  exit 1
}

need_packages() {
  if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    need_tools "$@"
    return
  fi
  missing=
  for package in "$@"; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
      *' installed') ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "missing packages:$missing (install them, or run as root)"
    as_root=sudo
  fi
  echo "bootstrap: installing$missing"
  $as_root apt-get update -qq
  # shellcheck disable=SC2086 # a list of names
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

# Without apt: the tools can be asked for; whether the libraries are there is for CMake to say.
need_tools() {
  missing=
  for tool in cmake ninja "${CXX:-g++}"; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
  done
  [ -z "$missing" ] || fail "missing:$missing. This is neither Debian nor Ubuntu; there the packages are: $*"
  echo "bootstrap: neither Debian nor Ubuntu; if CMake misses something, the Debian packages are: $*"
}

configure() {
  # Two checkouts in two places share what they compiled.
  CCACHE_BASEDIR=${CCACHE_BASEDIR:-$root}
  CCACHE_NOHASHDIR=1
  CXX=${CXX:-g++}
  export CCACHE_BASEDIR CCACHE_NOHASHDIR CXX
  (cd "$root" && cmake --preset native "$@")
}

run_tests() {
  # shellcheck disable=SC2086 # a list of names
  need_packages $test_packages
  configure -DHEED_BUILD_TESTS=ON -DHEED_BUILD_BENCH=ON -DHEED_BUILD_EXAMPLES=ON "$@"
  cmake --build "$build" --parallel "$jobs"
  (cd "$build" && ctest --output-on-failure --no-tests=error --parallel "$jobs")
}

run_demo() {
  model='' tokenizer='' text=''
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || fail "$1 needs a file"
    case $1 in
      --model) model=$2 ;;
      --tokenizer) tokenizer=$2 ;;
      --text) text=$2 ;;
      *) fail "demo knows --model FILE, --tokenizer FILE and --text FILE, not $1" ;;
    esac
    [ -f "$2" ] || fail "no file $2"
    shift 2
  done
  models=$root/../shared/models
  texts=$root/../shared/text
  if [ -z "$model" ] && [ -f "$models/stories260K.bin" ]; then
    model=$models/stories260K.bin
    tokenizer=${tokenizer:-$models/tok512.bin}
  fi
  if [ -z "$text" ] && [ -f "$texts/tinystories.txt" ]; then
    text=$texts/tinystories.txt
  fi
  [ -z "$model" ] || [ -n "$tokenizer" ] || fail "--model needs --tokenizer FILE beside it"

  # shellcheck disable=SC2086 # a list of names
  need_packages $demo_packages
  configure -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_BENCH=OFF -DHEED_BUILD_EXAMPLES=ON
  cmake --build "$build" --parallel "$jobs"

  if [ -n "$model" ]; then
    show "$build/bin/generate" --model "$model" --tokenizer "$tokenizer" --steps 200 --temperature 0
    if [ -n "$text" ]; then
      show "$build/bin/extrapolate" --model "$model" --tokenizer "$tokenizer" --text "$text" --length 2048 --windows 5
    else
      echo "bootstrap: give --text FILE (TinyStories or the like) to see extrapolate as well"
    fi
    return
  fi

  for example in "$build"/bin/heed_example_[0-9][0-9]_*; do
    [ -x "$example" ] || fail "no examples were built"
    show "$example"
  done
  cat <<'END'

There is no model here, so the numbered examples ran. To see a language model on heed, get stories260K.bin and tok512.bin
from karpathy/tinyllamas (folder stories260K, the llama2.c format) and any text of stories, then:
  sh cmake/bootstrap.sh demo --model stories260K.bin --tokenizer tok512.bin --text stories.txt
END
}

show() {
  printf '\n== %s\n' "$(basename "$1")"
  "$@"
}

task=${1:-}
[ $# -eq 0 ] || shift
case $task in
  test) run_tests "$@" ;;
  demo) run_demo "$@" ;;
  packages) need_packages "$@" ;;
  *) fail "usage: sh cmake/bootstrap.sh demo|test" ;;
esac
