"""Faces in frames: found, aligned, pasted back. Never imports torch."""
