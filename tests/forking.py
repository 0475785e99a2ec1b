"""Processes forked off a server that has the libraries loaded and runs nothing else.

A process that is forked off the tests themselves may wait for ever for a lock that a thread of
another test held at that moment. The server has no such threads, and a child of it still starts in
some hundredths of a second. Functions that run in a child are found by their module's name.
"""

from __future__ import annotations

import multiprocessing

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["teachers.timm_teacher", "onnx", "onnxscript", "onnxruntime", "lightning_fabric",
     "matplotlib.pyplot", "scipy", "compress.session", "compress.student_runs",
     "compress.quantized_runs", "compress.pruned_runs", "compress.int8.tuning",
     "compress.data.scenes", "compress.report", "compress.verification"]
)  # fmt: skip


def warm_up() -> None:
    """Start the server, where it does not run yet, and wait until its libraries are loaded."""
    process = context.Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None:
    pass
