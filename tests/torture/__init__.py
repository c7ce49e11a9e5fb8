"""Jobs under kills and load: python -m tests.torture FOLDER (make torture)."""
