"""Implements the tools that users would otherwise pick, as they would write them, without importing this project."""
