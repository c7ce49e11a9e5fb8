"""A bundle as a model of NVIDIA's Triton Inference Server: its repository, and what runs in it."""
