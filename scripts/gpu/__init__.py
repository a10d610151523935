"""The parts of `scripts/gpu_check.py`, one a file: each runs in a process of its own and reports figures as it gets them."""
