"""Fits one adapter and keeps the best checkpoint."""
