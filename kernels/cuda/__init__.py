"""The forward pass on an NVIDIA GPU. Start with blocks.py; primitives.py is the bottom of the house."""
