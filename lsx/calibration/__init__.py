"""Clips to aligned faces, recorded feeds, and recipes for INT8 and FP8. Needs the `quantize` extra."""
