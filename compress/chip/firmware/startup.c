/* Reset on a Cortex-M without a vendor library: memory set up, coprocessors on, main called. */

#include <stdint.h>

extern uint32_t image_data_source[], image_data_start[], image_data_end[];
extern uint32_t image_bss_start[], image_bss_end[], image_stack_top[];

#define CPACR (*(volatile uint32_t *)0xE000ED88u) /* Coprocessor Access Control Register */

int main(void);
void reset(void);
void fault(void);

/* Loops are kept as loops: a call of memset or memcpy here would be counted as the network's. */
__attribute__((noreturn, optimize("no-tree-loop-distribute-patterns"))) void reset(void)
{
    CPACR |= 0xFu << 20; /* FPU and MVE share coprocessors 10 and 11 */
    __asm volatile("dsb\n\tisb" ::: "memory");
    const uint32_t *source = image_data_source;
    for (uint32_t *word = image_data_start; word < image_data_end; ++word) {
        *word = *source++;
    }
    for (uint32_t *word = image_bss_start; word < image_bss_end; ++word) {
        *word = 0;
    }
    main();
    for (;;) {
    }
}

__attribute__((weak)) void fault(void)
{
    for (;;) {
    }
}

/* Stack, reset and the 14 system exceptions; no interrupt is enabled. */
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    image_stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault,
};
