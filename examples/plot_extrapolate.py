#!/usr/bin/env python3
"""Draws the table that `extrapolate --csv` writes: loss by position, one colour a method, dashed with log-n."""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAMES = {
    "rope": "RoPE, unchanged",
    "linear": "linear",
    "ntk_aware": "NTK-aware",
    "ntk_old": "NTK-old",
    "ntk_fixed": "NTK-fixed",
    "ntk_mixed": "NTK-mixed",
    "yarn": "YaRN",
}
LOG_N = "+logn"


def read_table(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    ranges = [tuple(int(edge) for edge in name.split("-")) for name in header[1:]]
    return ranges, {row[0]: [float(x) for x in row[1:]] for row in rows}


def split_by_scale(table):
    """What has lost the model at every length is named, not drawn: it would flatten all the rest."""
    ceiling = 1.12 * max(table["rope"])
    shown = {name: values for name, values in table.items() if min(values) <= ceiling}
    floor = min(min(values) for values in shown.values())
    lost = {name: min(values) for name, values in table.items() if name not in shown and LOG_N not in name}
    return shown, lost, (floor - 0.05 * (ceiling - floor), ceiling)


def draw_methods(axes, ranges, shown):
    middles = [(first + last) / 2 for first, last in ranges]
    bases = list(dict.fromkeys(name.removesuffix(LOG_N) for name in shown))
    colours = {"rope": "#222222"} | dict(zip([b for b in bases if b != "rope"], plt.get_cmap("tab10").colors))
    for name, values in shown.items():
        base = name.removesuffix(LOG_N)
        if name == base:
            axes.plot(middles, values, "o-", color=colours[base], lw=2.2, ms=5, label=NAMES.get(base, base))
        else:
            axes.plot(middles, values, "--", color=colours[base], lw=1.4)
    if any(LOG_N in name for name in shown):
        axes.plot([], [], "--", color="#888888", lw=1.4, label="the same with log-n")


def mark_training(axes, train_length, first, last):
    if not first < train_length < last:
        return
    axes.axvspan(first, train_length, color="#f1f1ec", zorder=0)
    axes.axvline(train_length, color="#999999", lw=1, zorder=0)
    axes.annotate(
        f"trained up to {train_length} ", (train_length, 0.98), xycoords=("data", "axes fraction"), ha="right", va="top",
        color="#555555",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="table from extrapolate --csv")
    parser.add_argument("png", help="picture to write")
    parser.add_argument("--train-length", type=int, default=512)
    arguments = parser.parse_args()
    ranges, table = read_table(arguments.csv)
    shown, lost, limits = split_by_scale(table)

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(10, 5.2), constrained_layout=True)
    draw_methods(axes, ranges, shown)
    mark_training(axes, arguments.train_length, ranges[0][0], ranges[-1][1])
    axes.set_title("Reading beyond the training length", loc="left", fontweight="bold", pad=12)
    axes.set_xlabel("position in the window, in tokens (each point is the mean over a range)")
    axes.set_ylabel("negative log-likelihood of the next token\nin nats, lower is better")
    axes.set_xlim(ranges[0][0], ranges[-1][1])
    axes.set_ylim(*limits)
    axes.set_xticks([first for first, _ in ranges] + [ranges[-1][1]])
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False)
    if lost:
        text = "off the scale:\n" + "\n".join(f"{NAMES.get(name, name)}, from {y:.1f} up" for name, y in lost.items())
        axes.annotate(text, (1.03, 0), xycoords="axes fraction", va="bottom", color="#777777")
    figure.savefig(arguments.png, dpi=160)


if __name__ == "__main__":
    main()
