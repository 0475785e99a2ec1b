"""Compression and distillation of sound-scene classifiers for hearing aids."""
