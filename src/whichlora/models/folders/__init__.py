"""Folders with models: `created` makes them once, `verified` detects damage, `digests` identifies their content."""
