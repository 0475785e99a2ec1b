"""A quantised network as C for a microcontroller.

layers       the int8 graph as a list of layers, channels last, with their numbers in fixed point
fixed_point  scales as 32-bit multipliers and shifts; the arithmetic of the C code in numpy
arena        where each activation lies in one array, by lifetimes
emit         layers and offsets as the text of C files
host         those files compiled and called on this machine
export       python -m compress.export --format c
frontend_c   the front end and the stream of decisions around the network, as C
emulate      those files cross-compiled, run in an emulator and counted; --target
figures      what was counted, as far as files bear it out, for the gate and the report
firmware     start-up code, linker scripts, test harness and the emulator's counting plugin
sources      the kernels, and what else is the same in every export
"""
