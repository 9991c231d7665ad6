"""Builds the report's tables and writes them as Markdown, LaTeX, CSV and HTML."""
