"""Engines against the PyTorch reference: figures, thresholds, record, and the culprit when one is missed."""
