"""One engine contract and its backends. Never imports torch or onnx; heavy libraries load inside their one file."""
