"""Reads runs, probes and artifacts from the tracking server into tables."""
