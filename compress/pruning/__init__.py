"""Structured and unstructured pruning of any registered network; the command is compress.prune.

groups      which channels can only go together (torch-pruning's dependency graph)
importance  what each channel is worth
planning    which channels go so that a target is met, from counts alone
rebuild     the pruned layers as an ordinary network with recorded widths
sparsity    single weights set to zero and kept there
steps       prune and fine-tune in turn, resumable
"""
