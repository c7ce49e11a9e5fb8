"""What every room uses: value types, names, files, threads. The standard library and NumPy, nothing else."""
