"""TensorRT and TensorRT-RTX: plans, and the engines that run them."""
