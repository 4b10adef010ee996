#!/usr/bin/env python3
"""Draws the table that `extrapolate --csv` writes: loss by position, dashed with log-n; below, what little tells
ReRoPE, its relatives and a window apart."""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# name: (label, colour). Scaled frequencies stand back; what leaves near distances alone is compared in a strip below.
PLAIN = {"rope": ("RoPE, unchanged", "#222222")}
SCALED = {
    "linear": ("linear", "#c0b283"),
    "ntk_aware": ("NTK-aware", "#4c86b0"),
    "ntk_old": ("NTK-old", "#7fb3ab"),
    "ntk_fixed": ("NTK-fixed", "#9a9a9a"),
    "ntk_mixed": ("NTK-mixed", "#b9a48f"),
    "yarn": ("YaRN", "#a58bbf"),
}
HELD = {
    "rerope": ("ReRoPE", "#d1242f"),
    "leaky_rerope": ("Leaky ReRoPE", "#e08a2c"),
    "self_extend": ("Self-Extend", "#7d4fa8"),
    "window": ("window", "#3a7d44"),
}
STYLES = PLAIN | SCALED | HELD
LOG_N = "+logn"


def read_table(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    ranges = [tuple(int(edge) for edge in name.split("-")) for name in header[1:]]
    return ranges, {row[0]: [float(x) for x in row[1:]] for row in rows}


def base_of(name):
    return name.removesuffix(LOG_N)


def style_of(name):
    return STYLES.get(base_of(name), (base_of(name), "#888888"))


def split_by_scale(table):
    """What has lost the model at every length is named, not drawn: it would flatten all the rest."""
    ceiling = 1.12 * max(table["rope"])
    shown = {name: values for name, values in table.items() if min(values) <= ceiling}
    floor = min(min(values) for values in shown.values())
    lost = {name: min(values) for name, values in table.items() if name not in shown and LOG_N not in name}
    return shown, lost, (floor - 0.08 * (ceiling - floor), ceiling)


def middles(ranges):
    return [(first + last) / 2 for first, last in ranges]


def label_ends(axes, x, labels, gap):
    """Names right of their lines' ends, moved up where they would touch."""
    lowest = float("-inf")
    for y, text, colour, weight in sorted(labels):
        lowest = max(y, lowest + gap)
        axes.annotate(text, (x, lowest), color=colour, va="center", fontweight=weight, annotation_clip=False)


def twins_of_rerope(shown, span):
    """What would lie on ReRoPE's line."""
    if "rerope" not in shown:
        return []
    apart = {name: max(abs(a - b) for a, b in zip(shown[name], shown["rerope"])) for name in shown if name in HELD}
    return [name for name in apart if name != "rerope" and apart[name] < 0.03 * span]


def draw_losses(axes, ranges, shown, limits, end):
    labels = []
    span = limits[1] - limits[0]
    twins = twins_of_rerope(shown, span)
    for name, values in shown.items():
        if name in twins:
            continue
        label, colour = style_of(name)
        strong = base_of(name) in ("rope", "rerope")
        if LOG_N in name:
            axes.plot(middles(ranges), values, "--", color=colour, lw=1.2, zorder=2 + strong)
            continue
        axes.plot(middles(ranges), values, "o-", color=colour, lw=3 if strong else 1.6, ms=6 if strong else 4,
                  zorder=3 + strong)
        labels.append((values[-1], label, colour, "bold" if strong else "normal"))
        if name == "rerope" and twins:
            labels.append((values[-1] - 0.05 * span, f"and {len(twins)} more, below", colour, "normal"))
    axes.set_ylim(*limits)
    label_ends(axes, end, labels, 0.05 * span)
    if any(LOG_N in name for name in shown):
        axes.plot([], [], "--", color="#777777", lw=1.2, label="the same with log-n")
        axes.legend(loc="upper left", bbox_to_anchor=(0.27, 1.0), frameon=False)


def draw_differences(axes, ranges, shown, end):
    labels = []
    for name, values in shown.items():
        if base_of(name) not in HELD:
            continue
        label, colour = style_of(name)
        difference = [value - held for value, held in zip(values, shown["rerope"])]
        dashed = LOG_N in name
        axes.plot(middles(ranges), difference, "--" if dashed else "o-", color=colour, lw=1.6, ms=4)
        if name != "rerope":
            labels.append((difference[-1], label + (" + log-n" if dashed else ""), colour, "normal"))
    low, high = axes.get_ylim()
    label_ends(axes, end, labels, 0.16 * (high - low))
    axes.set_ylabel("difference\nfrom ReRoPE")


def mark_training(axes, train_length, first, last, named):
    if not first < train_length < last:
        return
    axes.axvspan(first, train_length, color="#f1f1ec", zorder=0)
    axes.axvline(train_length, color="#999999", lw=1, zorder=0)
    if named:
        axes.annotate(
            f"trained up to {train_length} ", (train_length, 0.98), xycoords=("data", "axes fraction"), ha="right",
            va="top", color="#555555",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="table from extrapolate --csv")
    parser.add_argument("png", help="picture to write")
    parser.add_argument("--train-length", type=int, default=512)
    arguments = parser.parse_args()
    ranges, table = read_table(arguments.csv)
    shown, lost, limits = split_by_scale(table)
    first, last = ranges[0][0], ranges[-1][1]
    end = middles(ranges)[-1] + 0.015 * (last - first)
    has_strip = "rerope" in shown and any(name in HELD and name != "rerope" for name in shown)

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, rows = plt.subplots(
        2 if has_strip else 1, 1, figsize=(10, 7 if has_strip else 5.2), sharex=True, squeeze=False,
        height_ratios=[3.2, 1][: 2 if has_strip else 1], constrained_layout=True,
    )
    panels = [row[0] for row in rows]
    draw_losses(panels[0], ranges, shown, limits, end)
    if has_strip:
        draw_differences(panels[1], ranges, shown, end)
    for axes in panels:
        mark_training(axes, arguments.train_length, first, last, axes is panels[0])
        axes.grid(color="#e6e6e6", lw=0.8)
        axes.set_axisbelow(True)
    panels[0].set_title("Reading beyond the training length", loc="left", fontweight="bold", pad=12)
    panels[0].set_ylabel("negative log-likelihood of the next token\nin nats, lower is better")
    panels[-1].set_xlabel("position in the window, in tokens (each point is the mean over a range)")
    panels[-1].set_xlim(first, last)
    panels[-1].set_xticks([begin for begin, _ in ranges] + [last])
    if lost:
        names = ", ".join(f"{style_of(name)[0]} (from {y:.1f} up)" for name, y in lost.items())
        panels[0].annotate("off the scale: " + names, (1, 1.02), xycoords="axes fraction", ha="right", color="#777777")
    figure.savefig(arguments.png, dpi=160)


if __name__ == "__main__":
    main()
