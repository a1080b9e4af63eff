"""What is built on CrossEncoder: the command line, and what times a model or compares it with others."""
