"""Checkpoints to bundles: graph modules, tracing, precision, parity. Needs the `export` extra."""
