"""Derives scores and other measures of runs, for tests and figures."""
