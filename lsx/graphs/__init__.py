"""The graphs that are exported, as PyTorch modules with their contracts, and the torch backend over them."""
