"""Localization: heat maps against outlines, thresholds, controls that never saw the film."""
