"""The forward pass in NumPy, the specification of every other backend. It is all in blocks.py."""
