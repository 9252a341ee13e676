"""Training: the loop, its step, data loading and augmentation, processes, checkpoints and history."""
