"""The forward pass in Numba. Start with blocks.py; simd.py and micro_kernel.py are the bottom of the house."""
