"""Figures and pages of runs and tables.

Read `run_figures` and `run_report` first, then their counterparts for tables.
Nothing here computes a result.
"""
