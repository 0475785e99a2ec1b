/* Runs the network in the emulator on windows from a file, by semihosting.

   clips.bin    in: windows one after the other, SCENE_INPUT_SIZE int16 in 1/256 dB each
   outputs.bin  out: one byte of decision and SCENE_CLASSES codes per window
   stack.bin    out: bytes of stack that scene_classify took, uint32
   layers.bin   out: per layer its multiply-accumulates, uint32, and its name with a closing 0

   measurement_mark() splits the run for the counting plugin: encoding of the first window, its
   layers one by one, then scene_classify on every window. */

#include "model.h"
#include "semihosting.h"

#define PAINT 0xA5C35A3Cu

extern uint32_t image_stack_limit[];

static int16_t window[SCENE_INPUT_SIZE];

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

/* Nothing between the two loops but scene_classify uses the stack below this frame. */
__attribute__((noinline)) static uint32_t stack_of_classify(int8_t *logits)
{
    volatile uint32_t *const top = stack_pointer();
    volatile uint32_t *word = image_stack_limit;
    for (; word < top; ++word) {
        *word = PAINT;
    }
    scene_classify(window, logits);
    for (word = image_stack_limit; word < top && *word == PAINT; ++word) {
    }
    return (uint32_t)((uintptr_t)top - (uintptr_t)word);
}

static void write_layers(void)
{
    const intptr_t file = open_file("layers.bin", WRITE_BINARY, 10);
    for (uint32_t layer = 0; layer < SCENE_LAYERS; ++layer) {
        uintptr_t length = 1;
        for (const char *letter = scene_layer_names[layer]; *letter; ++letter) {
            ++length;
        }
        write_file(file, &scene_layer_macs[layer], sizeof scene_layer_macs[layer]);
        write_file(file, scene_layer_names[layer], length);
    }
    close_file(file);
}

int main(void)
{
    int8_t record[1 + SCENE_CLASSES];
    const intptr_t clips = open_file("clips.bin", READ_BINARY, 9);
    const intptr_t outputs = open_file("outputs.bin", WRITE_BINARY, 11);

    if (transfer(READ, clips, window, sizeof window) != 0) {
        leave(STOPPED_BY_ERROR);
    }
    measurement_mark();
    scene_encode(window, scene_input());
    measurement_mark();
    for (uint32_t layer = 0; layer < SCENE_LAYERS; ++layer) {
        scene_run_layer(layer);
        measurement_mark();
    }
    const uint32_t stack = stack_of_classify(record + 1);
    do {
        measurement_mark();
        record[0] = (int8_t)scene_classify(window, record + 1);
        measurement_mark();
        write_file(outputs, record, sizeof record);
    } while (transfer(READ, clips, window, sizeof window) == 0);
    close_file(outputs);

    const intptr_t file = open_file("stack.bin", WRITE_BINARY, 9);
    write_file(file, &stack, sizeof stack);
    close_file(file);
    write_layers();
    leave(STOPPED_BY_APPLICATION);
}
