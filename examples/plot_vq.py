#!/usr/bin/env python3
"""Draws the table that 11_vq writes: time against length, dense beside VQ, on logarithmic axes."""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter


def read_table(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple([float(row[name]) for row in rows] for name in ("length", "dense_ms", "vq_ms"))


def milliseconds(t, _):
    return f"{t / 1000:g} s" if t >= 1000 else f"{t:g} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="table from 11_vq")
    parser.add_argument("png", help="picture to write")
    arguments = parser.parse_args()
    length, dense, vq = read_table(arguments.csv)

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    axes.loglog(length, dense, "o-", color="#222222", lw=2.2, ms=5)
    axes.loglog(length, vq, "o-", color="#1f77b4", lw=2.2, ms=5)
    axes.annotate("dense", (length[-1], dense[-1]), xytext=(8, 0), textcoords="offset points", va="center")
    axes.annotate(
        f"VQ keys\n{dense[-1] / vq[-1]:.0f} times faster", (length[-1], vq[-1]), xytext=(8, 0), textcoords="offset points",
        va="center", color="#1f77b4",
    )
    for power, end, name, above in ((2, dense[-1], "∝ length²", 1.7), (1, vq[-1], "∝ length", 1 / 2.4)):
        guide = [end * above * (n / length[-1]) ** power for n in length]
        axes.loglog(length[-3:], guide[-3:], ":", color="#999999", lw=1.4)
        axes.annotate(
            name, (length[-3], guide[-3]), xytext=(-4, 0), textcoords="offset points", ha="right", va="center", color="#888888"
        )
    axes.set_title("Causal attention: time against length", loc="left", fontweight="bold", pad=12)
    axes.set_xlabel("length, in tokens")
    axes.set_xticks(length)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(milliseconds))
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    figure.savefig(arguments.png, dpi=160)


if __name__ == "__main__":
    main()
