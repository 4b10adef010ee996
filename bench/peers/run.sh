#!/bin/sh
# sh bench/peers/run.sh [ARGUMENT OF run.py...]
#
# heed beside OpenBLAS, Eigen, oneDNN, ggml, ONNX Runtime and PyTorch: builds the programs, lets all take turns, prints
# the table and writes peers.json, peers.md and peers.png into build/native/peers. `sh bench/peers/setup.sh` first; what it
# could not install is skipped.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
peers=${HEED_PEERS_DIR:-$root/build/peers}
build=$root/build/native
cd "$root"
CXX=${CXX:-g++} cmake --preset native -DHEED_BUILD_BENCH=ON -DHEED_PEERS_DIR="$peers" >/dev/null
cmake --build "$build" --target heed_peers
python=$peers/python/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$root/bench/peers/run.py" --programs "$build/peers" --peers "$peers" --out "$build/peers" "$@"
