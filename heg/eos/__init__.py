"""The equation of state as a table: many runs, one surface through them.

Read `grid` first, then `forecast`, `survey`, `doubts`, `twist_average`, `surface` and `table`;
`table_directory` and `table_files` know their files.  Nothing here prints or draws figures.
"""
