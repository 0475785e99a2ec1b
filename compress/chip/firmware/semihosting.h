/* Files of the machine that runs the emulator, and the end of a run. */

#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

enum { OPEN = 0x01, CLOSE = 0x02, WRITE = 0x05, READ = 0x06, EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 }; /* modes of fopen: rb, wb */
#define STOPPED_BY_APPLICATION 0x20026
#define STOPPED_BY_ERROR 0x20023

static intptr_t semihost(intptr_t operation, const void *parameter)
{
    register intptr_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameter;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

__attribute__((noreturn)) static void leave(uintptr_t reason)
{
    semihost(EXIT, (const void *)reason);
    for (;;) {
    }
}

static intptr_t open_file(const char *name, uintptr_t mode, uintptr_t length)
{
    const uintptr_t block[3] = {(uintptr_t)name, mode, length};
    const intptr_t handle = semihost(OPEN, block);
    if (handle < 0) {
        leave(STOPPED_BY_ERROR);
    }
    return handle;
}

/* Bytes that were NOT transferred, as semihosting counts them. */
static intptr_t transfer(intptr_t operation, intptr_t handle, const void *bytes, uintptr_t length)
{
    const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)bytes, length};
    return semihost(operation, block);
}

static void write_file(intptr_t handle, const void *bytes, uintptr_t length)
{
    if (transfer(WRITE, handle, bytes, length) != 0) {
        leave(STOPPED_BY_ERROR);
    }
}

static void close_file(intptr_t handle)
{
    const intptr_t block[1] = {handle};
    semihost(CLOSE, block);
}

#endif
