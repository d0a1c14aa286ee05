"""Measurements of speed and memory: `make bench`, or `python -m benchmarks --help`.

Each writes a record that the book reads.
"""
