"""Losses on labels and on teacher logits: one class each, named in compress.registry."""
