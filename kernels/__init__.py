"""Array functions: they know nothing of models, files or text. Start with reference/transformer.py."""
