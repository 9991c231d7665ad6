"""Processes and threads of one run: distributed ranks, runs in lockstep, locks."""
