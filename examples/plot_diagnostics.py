#!/usr/bin/env python3
"""Draws the table that `13_diagnostics --csv FILE` writes: entropy of attention rows against length."""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="table from 13_diagnostics")
    parser.add_argument("png", help="picture to write")
    given = parser.parse_args()
    with open(given.csv, newline="") as file:
        rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    lengths = [row["length"] for row in rows]
    trained = rows[0]["trained"]

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    lines = (("plain", "plain", "#222222"), ("log_n", f"scores × ln n / ln {trained:.0f}", "#1f77b4"))
    for column, name, colour in lines:
        values = [row[column] for row in rows]
        axes.plot(lengths, values, "o-", color=colour, lw=2.2, ms=5)
        axes.annotate(name, (lengths[-1], values[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=colour)
    axes.axvline(trained, color="#bbbbbb", lw=1, zorder=0)
    axes.annotate(
        "training length", (trained, 0), xycoords=("data", "axes fraction"), xytext=(6, 8), textcoords="offset points",
        color="#888888",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{int(n)}" for n in lengths])
    axes.set_xlim(lengths[0] * 0.9, lengths[-1] * 3.2)
    axes.set_xlabel("keys that a row sees")
    axes.set_ylabel("entropy of a row, nats")
    axes.set_title("Attention spreads over longer contexts; log-n holds it back", loc="left", fontweight="bold", pad=12)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    figure.savefig(given.png, dpi=120)


if __name__ == "__main__":
    main()
