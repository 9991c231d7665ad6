"""Tests claims of papers against the runs of a study."""
