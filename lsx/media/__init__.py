"""Files to frames and samples, and back: readers, writers, encoders. Never imports torch."""
