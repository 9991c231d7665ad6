"""The dimensions of search spaces: lists and ranges (`kinds`), those that every variant can have beside its grid
(`recipe`), and those of a user's file (`space_file`).
"""

from tuning.dimensions.kinds import Choice, Dimension, Range

__all__ = ["Choice", "Dimension", "Range"]
