"""Live: an avatar that speaks what it is given, while it is given, and idles in between."""
