"""Benchmarks: fixed seeds, warm and cold apart, each against a twin, the ratio printed and saved as JSON.

`python -m experiments.bench` runs them all. Read the ratios, not the milliseconds: contenders run in turn, so a slow
machine slows both.
"""
