"""INT8 and FP8: what is quantized, with which ranges, and what it costs."""
