"""Scores and other measures of runs, in the tables that tests and figures read."""
