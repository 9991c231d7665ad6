"""Runs, probes and artifacts as the tracking server holds them, as tables."""
