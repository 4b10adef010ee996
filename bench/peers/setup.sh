#!/bin/sh
# sh bench/peers/setup.sh [DIRECTORY]    (default: build/peers)
#
# Installs what heed is compared with into virtual environments below DIRECTORY: PyTorch, ONNX Runtime, two oneDNNs and
# ggml from the Python package index, and on Debian and Ubuntu the system's oneDNN and OpenBLAS by apt. What cannot be
# installed is named and left out; run.sh goes without it. About 7 GB, most of it the CUDA libraries without which the
# index's PyTorch for x86-64 does not load; HEED_TORCH_INDEX may name an index that has a smaller one for CPUs.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
peers=${1:-$root/build/peers}
python=${PYTHON:-python3}
skipped=
mkdir -p "$peers"

skip() {
  echo "setup: left out: $*" >&2
  skipped="$skipped $1"
}

# environment NAME PIP-ARGUMENT...: a virtual environment with these packages.
environment() {
  name=$1
  shift
  [ -x "$peers/$name/bin/python" ] || "$python" -m venv "$peers/$name" || return 1
  "$peers/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

sh "$root/cmake/bootstrap.sh" packages libdnnl-dev libopenblas-dev libbenchmark-dev pkg-config || skip system-libraries
environment python numpy matplotlib || { echo "setup: no virtual environment; is python3-venv installed?" >&2; exit 1; }
environment python onnx onnxruntime || skip onnxruntime
if [ -n "${HEED_TORCH_INDEX:-}" ]; then
  environment python torch --index-url "$HEED_TORCH_INDEX" || skip torch
else
  environment python torch || skip torch
fi
# 3.2, the last that the index has with OpenMP; and the newest, which runs through SYCL and Intel's OpenCL.
environment onednn_gomp onednn-cpu-gomp onednn-devel-cpu-gomp || skip onednn_gomp
environment onednn_sycl onednn onednn-devel || skip onednn_sycl
# Compiled here, for this machine: its wheels are for any.
environment ggml --no-binary ggml-python ggml-python || skip ggml
echo "setup: peers are in $peers${skipped:+; left out:$skipped}"
