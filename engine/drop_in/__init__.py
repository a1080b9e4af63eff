"""What sentence-transformers' interface has besides predict and rank: options, old names, prompts, saving."""
