"""The loop: its schedule, its program of operations, and what runs it on a CPU or a GPU. Never imports torch."""
