"""How far results are apart: arrays, images, and networks that judge clips."""
