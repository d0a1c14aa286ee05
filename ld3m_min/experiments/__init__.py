"""Grids of runs, their records, tables and figures (section 4.2)."""
