"""Writes the report: sections, sentences, the page."""
