#!/usr/bin/env python3
"""The README's picture from heed_bench_attention's numbers.

    heed_bench_attention --benchmark_filter='prefill/dim|decode' --benchmark_out=run.json --benchmark_out_format=json
    python3 bench/plot.py run.json [more.json ...] --out bench/prefill.png

Of several files, each case shows its best run: neighbours on the same machine slow a run down, nothing speeds one up.
"""

import argparse
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's colours, told apart with every kind of colour vision; lightness differs too, for print.
COLOURS = {"heed": "#0072B2", "eigen": "#E69F00", "openblas": "#999999",
           "float": "#0072B2", "half": "#56B4E9", "bfloat16": "#009E73", "int8": "#CC79A7"}
SQUARES = ["dim64_2048", "dim128_2048", "dim64_512", "dim128_512", "dim64_128", "dim128_128"]
STORAGES = ["float", "half", "bfloat16", "int8"]
CACHES = ["8on8_512", "8on8_4096", "8on8_32768", "32on8_512", "32on8_4096", "32on8_32768"]


def read(path):
    """{case: counters}; where a case was repeated, its median."""
    with open(path) as file:
        content = json.load(file)
    cases = {}
    for entry in content["benchmarks"]:
        if entry.get("error_occurred") or entry.get("aggregate_name", "median") != "median":
            continue
        name = entry.get("run_name", entry["name"]).replace("/manual_time", "")
        if entry.get("run_type") == "aggregate" or name not in cases:
            cases[name] = entry
    return cases


def best(runs, case, counter):
    """The counters of the run in which `counter` is greatest, or None."""
    entries = [run[case] for run in runs if counter in run.get(case, {})]
    return max(entries, key=lambda entry: entry[counter]) if entries else None


def prefill_bars(runs, sees):
    """Per shape the shares of the peak, in percent: heed's, and the floors' from their times."""
    rows = []
    for shape in SQUARES:
        entry = best(runs, f"prefill/{shape}/{sees}", "of_peak")
        if entry is None:
            continue
        dim, length = shape.removeprefix("dim").split("_")
        share = 100 * entry["of_peak"]
        bars = {"heed": share}
        for floor in ("eigen", "openblas"):
            if f"against_{floor}" in entry:
                bars[floor] = share / entry[f"against_{floor}"]
        rows.append((f"{length}²\ndim {dim}", bars))
    return rows


def decode_bars(runs):
    rows = []
    for cache in CACHES:
        bars = {}
        for storage in STORAGES:
            entry = best(runs, f"decode/{cache}/{storage}", "of_bandwidth")
            if entry is not None:
                bars[storage] = 100 * entry["of_bandwidth"]
        if bars:
            heads, length = cache.split("_")
            rows.append((f"{length} keys\n{heads.replace('on', ' on ')} heads", bars))
    return rows


def draw(axes, rows, order, title):
    width = 0.8 / len(order)
    for place, (_, bars) in enumerate(rows):
        for i, key in enumerate(order):
            if key not in bars:
                continue
            x = place + (i - (len(order) - 1) / 2) * width
            axes.bar(x, bars[key], width * 0.94, color=COLOURS[key], zorder=2)
            axes.text(x, bars[key] + 1.2, f"{bars[key]:.0f}", ha="center", va="bottom", fontsize=7,
                      fontweight="bold" if key == "heed" else "normal", zorder=3)
    axes.set_xticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_ylim(0, 104)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, fontsize=9.5, loc="left")


def legend(axes, names, **where):
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[key]) for key in names]
    axes.legend(handles, names.values(), fontsize=8, frameon=False, handlelength=1, handleheight=1, **where)


def main():
    arguments = argparse.ArgumentParser(description="Draws the README's picture.")
    arguments.add_argument("json", nargs="+", help="--benchmark_out of heed_bench_attention")
    arguments.add_argument("--out", required=True, help="the PNG to write")
    given = arguments.parse_args()

    runs = [read(path) for path in given.json]
    full, causal, decode = prefill_bars(runs, "full"), prefill_bars(runs, "causal"), decode_bars(runs)
    if not full and not causal:
        sys.exit(f"plot.py: no prefill cases in {', '.join(given.json)}")

    figure = plt.figure(figsize=(8.6, 5.0 if decode else 2.9), facecolor="white")
    grid = figure.add_gridspec(2 if decode else 1, 2, hspace=0.5, wspace=0.05)
    left = figure.add_subplot(grid[0, 0])
    right = figure.add_subplot(grid[0, 1], sharey=left)
    order = ["heed", "eigen", "openblas"]
    draw(left, full, order, "Prefill, full: % of the FMA peak")
    draw(right, causal, order, "Prefill, causal: % of the FMA peak, visible pairs only")
    right.tick_params(axis="y", labelleft=False, length=0)
    legend(left, {"heed": "heed", "eigen": "composed of Eigen products", "openblas": "composed of OpenBLAS products"},
           loc="lower left", bbox_to_anchor=(-0.01, 1.11), ncol=3, borderpad=0, columnspacing=1.4)
    if decode:
        below = figure.add_subplot(grid[1, :])
        draw(below, decode, STORAGES,
             "Decode, one token, dim 128: % of the rate at which the same bytes are read")
        legend(below, dict(zip(STORAGES, STORAGES)), loc="lower right", bbox_to_anchor=(1.0, 1.01), ncol=len(STORAGES),
               borderpad=0, columnspacing=1.4)
        below.set_ylim(0, max(104, 12 + max(value for _, bars in decode for value in bars.values())))
    how = "medians" if len(runs) == 1 else f"best of {len(runs)} runs' medians"
    figure.text(0.995, 0.005, f"float arithmetic, one thread, {how}; limits and floors measured between the calls",
                ha="right", va="bottom", fontsize=7, color="#555555")
    figure.subplots_adjust(left=0.045, right=0.995, top=0.9 if decode else 0.82, bottom=0.125 if decode else 0.22)
    figure.savefig(given.out, dpi=200)


if __name__ == "__main__":
    main()
