"""From pairs of text to scores. Start with cross_encoder.py."""
