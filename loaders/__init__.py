"""What a checkpoint is: where its files are, what they must hold, how they become arrays. Start with checkpoint.py."""
