/* A plugin for QEMU that counts executed instructions by address, between marks.

   -plugin count.so,mark=ADDRESS,counts=FILE

   Whenever the function at ADDRESS is entered, and at the end, FILE gets a line "mark" and then
   one line "address instructions times" (hexadecimal, decimal, decimal) for every block of
   translated code that ran since the mark before.

   The few declarations stand here since distributions do not ship qemu-plugin.h; they are those
   of QEMU's documented plugin interface (docs/devel/tcg-plugins). PLUGIN_INTERFACE is its version:
   1 up to QEMU 8, 2 from 9 on. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_info_t;
typedef uint64_t plugin_id;
enum { NO_REGISTERS = 0 };

uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id id, void (*translated)(plugin_id id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *block, void (*executed)(unsigned int cpu, void *data), int flags,
    void *data);
void qemu_plugin_register_atexit_cb(
    plugin_id id, void (*left)(plugin_id id, void *data), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_INTERFACE;

struct block {
    uint64_t address, times;
    size_t instructions;
    struct block *next;
};

static struct block *blocks;
static uint64_t mark_address;
static FILE *counts;

static void write_counts(void)
{
    for (struct block *block = blocks; block; block = block->next) {
        if (block->times) {
            fprintf(counts, "%" PRIx64 " %zu %" PRIu64 "\n", block->address, block->instructions,
                    block->times);
            block->times = 0;
        }
    }
}

static void executed(unsigned int cpu, void *data)
{
    (void)cpu;
    struct block *block = data;
    if (block->address == mark_address) {
        write_counts();
        fputs("mark\n", counts);
    }
    ++block->times;
}

static void translated(plugin_id id, struct qemu_plugin_tb *code)
{
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) {
        abort();
    }
    block->address = qemu_plugin_tb_vaddr(code);
    block->instructions = qemu_plugin_tb_n_insns(code);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(code, executed, NO_REGISTERS, block);
}

static void left(plugin_id id, void *data)
{
    (void)id;
    (void)data;
    write_counts();
    fclose(counts);
}

__attribute__((visibility("default"))) int qemu_plugin_install(
    plugin_id id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; ++i) {
        if (!strncmp(argv[i], "mark=", 5)) {
            mark_address = strtoull(argv[i] + 5, NULL, 0);
        } else if (!strncmp(argv[i], "counts=", 7)) {
            counts = fopen(argv[i] + 7, "w");
        }
    }
    if (!counts) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, left, NULL);
    return 0;
}
