"""Engines against the PyTorch reference: figures, thresholds, the stamp, and who is guilty when they are missed."""
