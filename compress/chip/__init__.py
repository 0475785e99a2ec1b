"""A network on a microcontroller: C code, its emulation, its figures."""
