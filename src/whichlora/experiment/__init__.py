"""Runs an experiment, a grid of run specs in a YAML file: `python -m whichlora.experiment`."""
