"""The page of a table."""


def write(path, made, grid, pictures):
    return path
