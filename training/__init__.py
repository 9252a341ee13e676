"""Loops over a loader, the state of a run, and augmentation."""
