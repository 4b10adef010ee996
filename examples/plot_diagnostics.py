#!/usr/bin/env python3
"""Draws the table that `13_diagnostics entropy.csv` writes: entropy of attention rows against length."""

import argparse
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("table", help="CSV file")
    arguments.add_argument("picture", help="PNG or SVG file to write")
    given = arguments.parse_args()
    with open(given.table, newline="") as file:
        rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    lengths = [row["length"] for row in rows]

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    axes.plot(lengths, [row["ceiling"] for row in rows], ":", color="#999999", label="ln n, all keys alike")
    axes.plot(lengths, [row["plain"] for row in rows], "o-", color="#222222", lw=2, label="plain")
    axes.plot(lengths, [row["log_n"] for row in rows], "o-", color="#1f77b4", lw=2, label="log_n{512}")
    axes.axvline(512, color="#cccccc", lw=1, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{int(n)}" for n in lengths])
    axes.set_xlabel("keys")
    axes.set_ylabel("entropy of a row, nats")
    axes.set_title("Attention blurs with length; log-n holds it back", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(given.picture, dpi=150)


if __name__ == "__main__":
    main()
