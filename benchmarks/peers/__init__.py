"""Implements what users would otherwise run, as they would write it, without importing this project."""
