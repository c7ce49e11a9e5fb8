"""Training: data sets, losses, the loop, StableSyncNet, validation. Source: LatentSync, arXiv 2412.09262."""
