#!/usr/bin/env python3
"""Lets heed and its peers take turns on the same shapes; see run.sh, which builds the programs and calls this.

In each round heed is timed, then every peer, heed again before the next: a peer's ratio is its time over the mean of
heed's before and after it, and what is shown is the median over the rounds. Above 1 heed is faster. Times are processor
time, one thread; a peer whose result is not heed's is not timed but named.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading

# name: heads_q, heads_kv, q_len, kv_len, dim, causal, storage
CASES = {
    "prefill/dim64_2048/full": (1, 1, 2048, 2048, 64, 0, "float"),
    "prefill/dim64_2048/causal": (1, 1, 2048, 2048, 64, 1, "float"),
    "prefill/dim128_2048/full": (1, 1, 2048, 2048, 128, 0, "float"),
    "prefill/dim128_2048/causal": (1, 1, 2048, 2048, 128, 1, "float"),
    "prefill/dim64_512/full": (1, 1, 512, 512, 64, 0, "float"),
    "prefill/dim64_512/causal": (1, 1, 512, 512, 64, 1, "float"),
    "prefill/dim64_128/full": (1, 1, 128, 128, 64, 0, "float"),
    "prefill/dim64_128/causal": (1, 1, 128, 128, 64, 1, "float"),
    "prefill/32on8_1024/causal": (32, 8, 1024, 1024, 128, 1, "float"),
    "prefill/dim128_2048/full/bfloat16": (1, 1, 2048, 2048, 128, 0, "bfloat16"),
    "prefill/dim128_2048/causal/bfloat16": (1, 1, 2048, 2048, 128, 1, "bfloat16"),
    "decode/8on8_512/float": (8, 8, 1, 512, 128, 0, "float"),
    "decode/8on8_512/half": (8, 8, 1, 512, 128, 0, "half"),
    "decode/8on8_512/bfloat16": (8, 8, 1, 512, 128, 0, "bfloat16"),
    "decode/32on8_512/float": (32, 8, 1, 512, 128, 0, "float"),
    "decode/32on8_512/half": (32, 8, 1, 512, 128, 0, "half"),
    "decode/8on8_32768/float": (8, 8, 1, 32768, 128, 0, "float"),
    "decode/32on8_32768/float": (32, 8, 1, 32768, 128, 0, "float"),
    "decode/32on8_32768/half": (32, 8, 1, 32768, 128, 0, "half"),
    "decode/32on8_32768/bfloat16": (32, 8, 1, 32768, 128, 0, "bfloat16"),
}
# Of the result, whose values are in [-1, 1].
TOLERANCE = {"float": 2e-5, "half": 4e-3, "bfloat16": 3e-2}
PATIENCE = 120  # seconds for one answer


class Program:
    """A peer's program; serve.hpp says what it is told."""

    def __init__(self, name, command, environment):
        self.name, self.alive = name, True
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=os.environ | environment)
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def ask(self, line):
        """The words of the answer; none, and the program counts as gone, where it fails or takes too long."""
        if not self.alive:
            return []
        alarm = threading.Timer(PATIENCE, self.process.kill)
        alarm.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:
            answer = ""
        alarm.cancel()
        if not answer.endswith("\n"):
            self.process.wait()
            self.alive = False
            print(f"skipped from here: {self.name} ({''.join(self.errors).strip()[-200:] or 'no answer'})", file=sys.stderr)
        return answer.split()

    def close(self):
        if self.alive:
            self.process.stdin.close()
            self.process.wait()


def start_programs(given):
    """heed's first."""
    # numpy would ask for huge pages, which the arrays of the other programs do not have.
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                  "NUMPY_MADVISE_HUGEPAGE": "0"}
    products = os.path.join(given.programs, "heed_peers_products")
    if not os.path.exists(products):
        sys.exit(f"run.py: no {products}; bench/peers/run.sh builds it")
    programs = [Program("heed, Eigen, OpenBLAS", [products], one_thread)]
    for kind in ("onednn_system", "onednn_gomp", "onednn_sycl", "ggml"):
        command = os.path.join(given.programs, f"heed_peers_{kind}")
        environment = dict(one_thread)
        if kind == "onednn_sycl":
            library = os.path.join(given.peers, "onednn_sycl", "lib")
            environment |= {"LD_LIBRARY_PATH": library, "DPCPP_CPU_NUM_CUS": "1", "ONEDNN_VERBOSE": "none",
                            "OCL_ICD_FILENAMES": os.path.join(library, "libintelocl.so")}
        if os.path.exists(command):
            programs.append(Program(kind, [command], environment))
        else:
            print(f"skipped: {kind} is not there", file=sys.stderr)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python_peers.py")
    python = os.path.join(given.peers, "python", "bin", "python")
    for module in ("onnxruntime", "torch"):
        found = subprocess.run([python, "-c", f"import {module}"], capture_output=True) if os.path.exists(python) else None
        if found is None or found.returncode:
            print(f"skipped: {module} is not there", file=sys.stderr)
        else:
            programs.append(Program(module, [python, script, module], one_thread))
    return programs


def differs(one, other, tolerance):
    return len(one) != len(other) or any(not abs(float(a) - float(b)) <= tolerance for a, b in zip(one, other))


def contenders(programs, shape):
    """[(program, name)] of those that do this shape and agree with heed, heed first; and the names of those that differ."""
    line = "shape " + " ".join(map(str, shape))
    every = [(program, name) for program in programs for name in program.ask(line)]
    if not every or every[0][1] != "heed":
        sys.exit("run.py: heed does not answer")
    right = programs[0].ask("sample heed")
    agreeing, wrong = [every[0]], []
    for program, name in every[1:]:
        if differs(program.ask(f"sample {name}"), right, TOLERANCE[shape[-1]]):
            wrong.append(name)
        else:
            agreeing.append((program, name))
    return agreeing, wrong


def seconds(contender, calls):
    program, name = contender
    answer = program.ask(f"run {name} {calls}")
    return float(answer[0]) if answer else None


def measure(programs, shape, rounds, least):
    """{name: {seconds, ratio}} and the names that differ."""
    (heed, *others), wrong = contenders(programs, shape)
    once = seconds(heed, 3)
    calls = {name: 1 for _, name in others} | {"heed": max(1, round(least / once))}
    for each in others:
        if (time := seconds(each, 1)) is not None:
            calls[each[1]] = max(1, round(least / max(time, 1e-7)))
    times, ratios = {"heed": []}, {}
    for number in range(rounds):
        before = seconds(heed, calls["heed"])
        # Another peer first in each round.
        for each in others[number % max(1, len(others)):] + others[:number % max(1, len(others))]:
            name = each[1]
            own, after = seconds(each, calls[name]), seconds(heed, calls["heed"])
            if own is not None:
                times.setdefault(name, []).append(own)
                ratios.setdefault(name, []).append(2 * own / (before + after))
            times["heed"].append(after)
            before = after
        times["heed"].append(before)
    result = {name: {"seconds": statistics.median(values)} for name, values in times.items()}
    for name, values in ratios.items():
        result[name]["ratio"] = statistics.median(values)
    return result, wrong


def flops(shape):
    heads, _, q_len, kv_len, dim, causal, _ = shape
    pairs = sum(min(kv_len, kv_len - q_len + i + 1) for i in range(q_len)) if causal else q_len * kv_len
    return 4 * heads * pairs * dim


def table(cases):
    names = list(dict.fromkeys(name for case in cases.values() for name in case["peers"] if name != "heed"))
    lines = ["| case | heed, GFLOP/s | " + " | ".join(name.replace("_", " ") for name in names) + " |",
             "|---" * (len(names) + 2) + "|"]
    for case, entry in cases.items():
        cells = []
        for name in names:
            ratio = entry["peers"].get(name, {}).get("ratio")
            cells.append("differs" if name in entry["differ"] else "–" if ratio is None
                         else f"**{ratio:.2f}**" if ratio < 1 else f"{ratio:.2f}")
        own = entry["flops"] / entry["peers"]["heed"]["seconds"] * 1e-9
        lines.append(f"| {case} | {own:.3g} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("A peer's time ÷ heed's, medians over rounds in which they take turns; **bold** where the peer is ahead.")
    return "\n".join(lines)


def draw(cases, path):
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not there", file=sys.stderr)
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    palette = ["#E69F00", "#F0D070", "#999999", "#CCCCCC", "#009E73", "#56B4E9", "#80C8B0", "#CC79A7", "#E0B0D0",
               "#D55E00", "#A0522D", "#F4A582"]
    names = list(dict.fromkeys(name for case in cases.values() for name in case["peers"] if name != "heed"))
    colour = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    figure, axes = plt.subplots(figsize=(8.6, 0.42 * len(cases) + 1.2), facecolor="white")
    for place, entry in enumerate(cases.values()):
        for name in names:
            if "ratio" in entry["peers"].get(name, {}):
                axes.plot(entry["peers"][name]["ratio"], -place, "o", color=colour[name], markersize=6, zorder=3)
    axes.axvline(1, color="#0072B2", linewidth=2, zorder=2)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [x for x in (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4, 6, 8, 12, 16, 24, 32) if low <= x <= high]
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_yticks([-i for i in range(len(cases))], list(cases), fontsize=8)
    axes.tick_params(length=0)
    axes.grid(color="#dddddd", linewidth=0.7, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour[name]) for name in names]
    figure.legend(handles, [name.replace("_", " ") for name in names], fontsize=8, frameon=False, ncol=5,
                  loc="upper center", handletextpad=0.1)
    axes.set_xlabel("time ÷ heed's, one thread (right of the line heed is faster)", fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.45 / figure.get_figheight()))
    figure.savefig(path, dpi=160)


def main():
    arguments = argparse.ArgumentParser(description="heed beside its peers, taking turns.")
    arguments.add_argument("--programs", required=True, help="folder of heed_peers_*")
    arguments.add_argument("--peers", required=True, help="folder that setup.sh filled")
    arguments.add_argument("--out", required=True, help="folder for peers.json, peers.md, peers.png")
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--least", type=float, default=0.02, help="seconds of one sample at least (%(default)s)")
    arguments.add_argument("--filter", default=".", help="regular expression: the cases to run")
    given = arguments.parse_args()

    os.makedirs(given.out, exist_ok=True)
    programs = start_programs(given)
    cases = {}
    for case, shape in CASES.items():
        if not re.search(given.filter, case):
            continue
        peers, differ = measure(programs, shape, given.rounds, given.least)
        cases[case] = {"flops": flops(shape), "peers": peers, "differ": differ}
        print(f"{case}: " + ", ".join(f"{name} {peer.get('ratio', 1):.2f}" for name, peer in peers.items()),
              file=sys.stderr)
    for program in programs:
        program.close()
    if not cases:
        sys.exit(f"run.py: no case matches '{given.filter}'")
    with open(os.path.join(given.out, "peers.json"), "w") as file:
        json.dump({"rounds": given.rounds, "cases": cases}, file, indent=1)
    text = table(cases)
    with open(os.path.join(given.out, "peers.md"), "w") as file:
        file.write(text + "\n")
    draw(cases, os.path.join(given.out, "peers.png"))
    print(text)


if __name__ == "__main__":
    main()
