"""Trains one adapter and keeps its best checkpoint."""
