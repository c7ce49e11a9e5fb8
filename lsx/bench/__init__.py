"""Bench: backends side by side in one run."""
