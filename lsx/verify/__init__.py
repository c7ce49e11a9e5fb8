"""Engines against the PyTorch reference: figures, thresholds, record, and who is guilty when one is missed."""
