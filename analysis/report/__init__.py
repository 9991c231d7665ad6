"""Writes the report: its sections, sentences and HTML page."""
