#!/usr/bin/env python3
"""What heed's speed shall be, and what it is: one line per target.

    cmake --build build/native --target heed_bench_attention heed_bench_attention_avx2
    sh bench/peers/setup.sh && sh bench/peers/run.sh                  (for the lines about other libraries)
    python3 bench/targets.py --bin build/native/bin --peers build/native/peers/peers.json

Runs each program several times. A share of the machine's limit, which the bench samples between its own repetitions, is
the best of the runs' medians: neighbours on the same machine slow a run down, nothing speeds one up. A ratio between two
pieces of code that took turns is the median of the runs' medians. Lines whose bench is not there say so.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

ATTENTION, AVX2 = "heed_bench_attention", "heed_bench_attention_avx2"
QUIET = 1500  # GFLOP/s of AMX tiles fed by loads: below, a neighbour shares the core


class Missing(Exception):
    """No such measurement; the text says what is missing."""


class Measured:
    """The counters of all runs, and the peers' table."""

    def __init__(self, peers):
        self.runs, self.peers = {}, peers  # {program: [{case: counters}]}

    def values(self, program, case, counter):
        found = [run[case][counter] for run in self.runs.get(program, []) if counter in run.get(case, {})]
        if not found:
            raise Missing(f"no {counter} of {case}" if program in self.runs else f"no {program}")
        return found

    def best(self, case, counter="of_peak", program=ATTENTION):
        return max(self.values(program, case, counter))

    def middle(self, case, counter, program=ATTENTION):
        return statistics.median(self.values(program, case, counter))

    def against(self, pattern, names):
        """The smallest ratio of the peers whose names match, over the cases that match; and who it was."""
        if self.peers is None:
            raise Missing("no --peers")
        found = [(peer["ratio"], name, case) for case, entry in self.peers.items() if re.fullmatch(pattern, case)
                 for name, peer in entry["peers"].items() if "ratio" in peer and re.fullmatch(names, name)]
        if not found:
            raise Missing("no such peer in --peers")
        return min(found)


class Target:
    """`wanted` is the least value, or with `most` the greatest; `measure(measured)` gives it, and a remark."""

    def __init__(self, text, wanted, measure, cases, most=False, unit="", needs=(ATTENTION,)):
        self.text, self.wanted, self.measure, self.cases = text, wanted, measure, cases
        self.most, self.unit, self.needs = most, unit, needs

    def row(self, measured):
        sign, where = "≤" if self.most else "≥", ", ".join(self.cases)
        wanted = self.wanted(measured) if callable(self.wanted) else self.wanted
        try:
            value, remark = self.measure(measured)
        except Missing as missing:
            return [self.text, f"{sign} {show(wanted)}{self.unit}", "not measured", "", f"{where} ({missing})"]
        held = value <= wanted if self.most else value >= wanted
        return [self.text, f"{sign} {show(wanted)}{self.unit}", f"{show(value)}{self.unit}", "held" if held else "MISSED",
                where + (f" ({remark})" if remark else "")]


def show(value):
    return f"{value:.4g}"


# --- kinds of targets ----------------------------------------------------------------------------------------------

def share(text, case, wanted, counter="of_peak", program=ATTENTION):
    return Target(text, wanted, lambda m: (m.best(case, counter, program), ""), [f"{case}: {counter}"], needs=(program,))


def ratio(text, case, counter, wanted):
    return Target(text, wanted, lambda m: (m.middle(case, counter), ""), [f"{case}: {counter}"])


def cost(name, text, percent):
    """Over plain, in percent; the counter is plain's time ÷ this one's."""
    case = f"modifier/{name}"
    return Target(f"{text} over plain, dim 64, full, 2048", percent,
                  lambda m: (100 * (1 / m.middle(case, "of_plain") - 1), ""), [f"{case}: of_plain"], most=True, unit=" %")


def beside(text, pattern, names, wanted):
    def measure(m):
        value, name, case = m.against(pattern, names)
        return value, f"the closest: {name} in {case}"
    return Target(text, wanted, measure, [f"peers.json: {pattern}"], needs=())


def second_thread(case):
    """The call's gain from the second thread over the raw read's: the shares of the two threads' and one's limits."""
    def measure(m):
        return m.middle(f"{case}/2threads", "of_bandwidth") / m.middle(case, "of_bandwidth"), ""
    return Target(f"{case}: gain of the second thread, of the raw read's own", 0.95, measure,
                  [f"{case}/2threads and {case}: of_bandwidth"])


def tiles(sees, quiet):
    case = f"amx/dim128_2048/{sees}"

    def is_quiet(m):
        try:
            return m.best(case, "tile_gflops") >= QUIET
        except Missing:
            return True

    def measure(m):
        return m.best(case), f"tiles {m.best(case, 'tile_gflops'):.0f} GFLOP/s: {'quiet' if is_quiet(m) else 'disturbed'}"
    return Target(f"bfloat16 on AMX, dim 128, 2048², {sees}: × the fp32 FMA peak", lambda m: quiet if is_quiet(m) else 2,
                  measure, [f"{case}: of_peak"])


def prefill(shape, text, shares, eigen, libraries):
    """full and causal: share of the peak, against blocked Eigen, against the best library."""
    lines = []
    for sees, least, floor, library in zip(("full", "causal"), shares, eigen, libraries):
        case, what = f"prefill/{shape}/{sees}", f"{text}, {sees}"
        lines.append(share(f"{what}: share of the FMA peak", case, least))
        lines.append(ratio(f"{what}: × blocked Eigen", case, "against_eigen", floor))
        lines.append(beside(f"{what}: × the best of oneDNN, ONNX Runtime, OpenBLAS, ggml", case,
                            r"onednn.*|onnxruntime.*|openblas|ggml.*", library))
    return lines


def all_targets():
    lines = []
    for dim in (128, 64):
        lines += prefill(f"dim{dim}_2048", f"dim {dim}, 2048²", (0.82, 0.80), (1.35, 1.35), (1.25, 2.2))
    lines += prefill("dim64_512", "dim 64, 512²", (0.78, 0.70), (1.3, 1.5), (1.2, 2.0))
    lines += prefill("dim64_128", "dim 64, 128²", (0.72, 0.58), (1.3, 1.8), (1.0, 1.0))

    for shape, text in [(f"dim{dim}_2048", f"dim {dim}, 2048²") for dim in (80, 96, 111, 256)] + [
            ("32on8_1024", "32 heads on 8, dim 128, 1024²")]:
        lines += [share(f"goal: {text}, {sees}: share of the FMA peak", f"prefill/{shape}/{sees}", 0.70)
                  for sees in ("full", "causal")]
    lines += [share(f"goal: window of 1024 in 8192, dim {dim}: share of the FMA peak", f"prefill/dim{dim}_8192/window", 0.70)
              for dim in (64, 128)]
    lines += [share(f"goal: AVX2 build, dim {dim}, 2048², {sees}: share of the 256-bit peak", f"prefill/dim{dim}_2048/{sees}",
                    0.82, program=AVX2) for dim in (128, 64) for sees in ("full", "causal")]
    lines += [ratio(f"goal: two threads, 8 heads, 2048², {sees}: × one thread", f"threads/8on8_2048/{sees}",
                    "of_one_thread", 1.85) for sees in ("full", "causal")]
    for name, text, percent in [("rotary", "fused rotary", 4), ("log_n", "log-n", 1), ("alibi", "ALiBi", 4),
                                ("softcap", "softcap", 12), ("bias", "bias", 20), ("half", "f16 storage", 5),
                                ("bfloat16", "bf16 storage", 5), ("int8", "int8 storage", 5)]:
        lines.append(cost(name, f"goal: {text}", percent))
    lines.append(beside("goal: ahead of PyTorch everywhere", ".*", "torch.*", 1.0))
    lines.append(share("goal: 0.88 of the peak, dim 128, 2048², full", "prefill/dim128_2048/full", 0.88))

    lines += [tiles("full", 4.2), tiles("causal", 3.5)]
    lines.append(beside("bfloat16, dim 128, 2048², full: × oneDNN's composed primitives",
                        "prefill/dim128_2048/full/bfloat16", "onednn.*", 2.0))

    for heads, least, least_int8 in (("8on8", 0.92, 0.82), ("32on8", 0.85, 0.60)):
        for storage in ("float", "half", "bfloat16", "int8"):
            wanted = least_int8 if storage == "int8" else least
            lines.append(share(f"decode, {heads.replace('on', ' heads on ')}, 32768 keys, {storage}: share of the read bandwidth",
                               f"decode/{heads}_32768/{storage}", wanted, "of_bandwidth"))
    lines.append(share("goal: decode, 32 heads on 8, 32768 keys, int8: 0.75", "decode/32on8_32768/int8", 0.75, "of_bandwidth"))
    lines += [share(f"{text}, int8 on AMX tiles: share of the read bandwidth", "decode/32on8_32768/int8/amx", wanted,
                    "of_bandwidth") for text, wanted in (("decode, 32 heads on 8, 32768 keys", 0.60),
                                                         ("goal: decode, 32 heads on 8, 32768 keys", 0.75))]
    lines += [second_thread(f"decode/{heads}_32768/{storage}") for heads in ("8on8", "32on8")
              for storage in ("float", "half", "bfloat16", "int8")]
    lines.append(beside("decode, 512 keys: ahead of every peer", r"decode/.*_512/.*", ".*", 1.0))
    lines.append(beside("decode, 32 heads on 8, f16: × the best peer", "decode/32on8_32768/half", ".*", 2.3))
    lines.append(Target("1 × 16 keys of dim 64: × Eigen's 16 × 64 matrix–vector product", 40,
                        lambda m: (1 / m.middle("fixed_cost", "of_eigen_gemv"), ""), ["fixed_cost: of_eigen_gemv"], most=True))
    return lines


# --- running -------------------------------------------------------------------------------------------------------

def cases_of(content):
    """{case: counters} of a --benchmark_out file."""
    cases = {}
    for entry in content["benchmarks"]:
        if not entry.get("error_occurred"):
            cases[re.sub(r"(/iterations:\d+)?(/manual_time)?$", "", entry["name"])] = entry
    return cases


def wanted_cases(targets, program):
    names = [re.findall(r"[a-z0-9_]+(?:/[a-z0-9_]+)*(?=:| and)", case) for each in targets if program in each.needs
             for case in each.cases]
    return sorted({name for found in names for name in found})


def run_once(path, cases, min_time):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run.json")
        done = subprocess.run([path, f"--benchmark_filter=^({'|'.join(cases)})(/iterations:[0-9]+)?/manual_time$",
                               f"--benchmark_min_time={min_time}", f"--benchmark_out={out}",
                               "--benchmark_out_format=json"],
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"targets.py: {os.path.basename(path)} failed: {done.stderr.strip()[-300:]}")
        with open(out) as file:
            return json.load(file)


def print_table(rows):
    rows = [["target", "wanted", "reached", "held", "bench: counter"]] + rows
    for number, row in enumerate(rows):
        print("| " + " | ".join(row) + " |")
        if number == 0:
            print("|---" * len(row) + "|")


def main():
    arguments = argparse.ArgumentParser(description="Targets of speed: reached or not.")
    arguments.add_argument("--bin", help="folder of heed_bench_attention; without it only --json is read")
    arguments.add_argument("--runs", type=int, default=5, help="of each program (%(default)s)")
    arguments.add_argument("--min-time", type=float, default=0.2, help="seconds of a case in a run (%(default)s)")
    arguments.add_argument("--peers", help="peers.json of bench/peers/run.sh")
    arguments.add_argument("--filter", default=".", help="regular expression: the targets to look at, by their text")
    arguments.add_argument("--save", help="folder to keep the runs' files in")
    arguments.add_argument("--json", nargs="*", default=[], metavar="FILE", help="saved runs, named <program>.<n>.json")
    given = arguments.parse_args()

    peers = None
    if given.peers:
        with open(given.peers) as file:
            peers = json.load(file)["cases"]
    targets = [each for each in all_targets() if re.search(given.filter, each.text)]
    measured = Measured(peers)
    for path in given.json:
        with open(path) as file:
            measured.runs.setdefault(os.path.basename(path).split(".")[0], []).append(cases_of(json.load(file)))
    for number in range(given.runs if given.bin else 0):
        for program in (ATTENTION, AVX2):
            path, cases = os.path.join(given.bin, program), wanted_cases(targets, program)
            if not cases or not os.path.exists(path):
                continue
            print(f"run {number + 1} of {given.runs}: {program}", file=sys.stderr)
            content = run_once(path, cases, given.min_time)
            if given.save:
                os.makedirs(given.save, exist_ok=True)
                with open(os.path.join(given.save, f"{program}.{number + 1}.json"), "w") as file:
                    json.dump(content, file, indent=1)
            measured.runs.setdefault(program, []).append(cases_of(content))

    rows = [each.row(measured) for each in targets]
    print_table(rows)
    held = sum(row[3] == "held" for row in rows)
    missed = sum(row[3] == "MISSED" for row in rows)
    runs = max((len(runs) for runs in measured.runs.values()), default=0)
    print(f"\n{held} held, {missed} missed, {len(rows) - held - missed} not measured; shares of limits are the best of {runs} "
          f"runs' medians, ratios the median of them")


if __name__ == "__main__":
    main()
