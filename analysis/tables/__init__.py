"""Tables of the report, in Markdown, LaTeX and CSV."""
