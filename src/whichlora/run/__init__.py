"""Trains and scores one run spec: `python -m whichlora.run`. Read `pipeline.py` first."""
