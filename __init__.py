"""Rank passages with cross-encoder transformers in Python, NumPy and Numba alone."""
