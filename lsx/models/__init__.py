"""The PyTorch reference: the modules, checkpoint loading, and the plain denoising loop. Needs the `export` extra."""
