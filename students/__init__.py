"""Students: small networks for log-mel windows, one family per module, channel widths explicit.

Every builder is ``build(classes=5, mels=32, frames=96, **explicit) -> nn.Module``. The module maps
(B, 1, mels, frames) float32, standardised per mel band, to logits (B, classes), and carries
``arguments``: a JSON-able dict with which ``build(**arguments)`` gives the same structure again.
"""
