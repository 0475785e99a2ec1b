/* Runs the stream in the emulator on samples from a file, by semihosting: front end, network, mean.

   sound.bin    in: int16 samples
   codes.bin    out: SCENE_CLASSES codes per decision
   stack.bin    out: bytes of stack that all of it took, uint32

   measurement_mark() splits the run for the counting plugin at every decision. */

#include "scene.h"
#include "semihosting.h"

#define PAINT 0xA5C35A3Cu
#define BLOCK 256 /* samples that come at once */

extern uint32_t image_stack_limit[];

void fault(void)
{
    leave(STOPPED_BY_ERROR);
}

__attribute__((noinline)) void measurement_mark(void)
{
    __asm volatile("" ::: "memory");
}

static volatile uint32_t *stack_pointer(void)
{
    volatile uint32_t *pointer;
    __asm volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

static void listen(intptr_t sound, intptr_t outputs)
{
    static int16_t samples[BLOCK];
    while (transfer(READ, sound, samples, sizeof samples) == 0) {
        size_t at = 0;
        while (at < BLOCK) {
            scene_decision found;
            at += scene_push(samples + at, BLOCK - at, &found);
            if (found.ready) {
                measurement_mark();
                write_file(outputs, found.codes, sizeof found.codes);
            }
        }
    }
}

/* The stack of `listen` and what it calls lies below this frame. */
__attribute__((noinline)) static uint32_t stack_of_listening(intptr_t sound, intptr_t outputs)
{
    volatile uint32_t *const top = stack_pointer();
    volatile uint32_t *word = image_stack_limit;
    for (; word < top; ++word) {
        *word = PAINT;
    }
    listen(sound, outputs);
    for (word = image_stack_limit; word < top && *word == PAINT; ++word) {
    }
    return (uint32_t)((uintptr_t)top - (uintptr_t)word);
}

int main(void)
{
    const intptr_t sound = open_file("sound.bin", READ_BINARY, 9);
    const intptr_t outputs = open_file("codes.bin", WRITE_BINARY, 9);
    scene_reset();
    const uint32_t stack = stack_of_listening(sound, outputs);
    close_file(outputs);

    const intptr_t file = open_file("stack.bin", WRITE_BINARY, 9);
    write_file(file, &stack, sizeof stack);
    close_file(file);
    leave(STOPPED_BY_APPLICATION);
}
