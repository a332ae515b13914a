"""Figures and pages of runs and tables.

Read `run_figures` and `run_report` first, then their counterparts for tables; `notebook` shows
results in notebooks; `html` holds what the pages have in common.
Nothing here computes a result.
"""
