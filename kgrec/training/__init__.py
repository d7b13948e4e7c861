"""Training: the loop, stopping, checkpoints."""
