"""A run: chunks of frames, the sound's features, the pipeline, and LipSync, which is all of it. Never imports torch."""
