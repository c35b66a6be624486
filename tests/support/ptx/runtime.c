/* Runs a translated kernel: blocks one after the other, the threads of a block as fibres that take turns at barriers.

   A fibre runs until it waits at a barrier or ends; then the next one runs. So a thread sees all or nothing of what
   another one does between two barriers, and races do not show in results: a checked kernel records who accessed each
   byte, and since which barrier. Linux on x86-64, one launch at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "runtime.h"

enum { STACK_BYTES = 1 << 22, MESSAGES_OF_A_FAULT = 3, MOST_FAULTS = 100000 };
/* The names are in program.py, in this order. */
enum { OUTSIDE, RACE, SAME_VALUE, BETWEEN_BLOCKS, STORE_TO_INPUT, BARRIER, NOT_WRITTEN, UNALIGNED, DIVISION_BY_ZERO };

void kernel(const uint64_t *parameters, uint32_t tid, uint32_t ntid, uint32_t ctaid, uint32_t nctaid);

static int this_thread, this_block;
static uint64_t *counts;
static char *messages;
static size_t room;

static void report(int fault, int line, const char *what) {
    if (counts[fault]++ >= MESSAGES_OF_A_FAULT) return;
    int n = snprintf(messages, room, "line %d: block %d thread %d: %s\n", line, this_block, this_thread, what);
    if (n > 0 && (size_t)n < room) { messages += n; room -= n; }
}

static void end_thread(void);

/* A fault of a thread. What it computes from then on is not what it should: after many, threads end. */
static void fault(int kind, int line, const char *what) {
    report(kind, line, what);
    uint64_t total = 0;
    for (int k = OUTSIDE; k <= DIVISION_BY_ZERO; k++) total += counts[k];
    if (total > MOST_FAULTS) end_thread();
}

/* --- arithmetic -------------------------------------------------------------------------------------------------- */
uint64_t division_by_zero(int line) { fault(DIVISION_BY_ZERO, line, "divides by 0"); return 0; }

float fmaf_down(float a, float b, float c) {
    fesetround(FE_DOWNWARD);
    volatile float rounded = fmaf(a, b, c);
    fesetround(FE_TONEAREST);
    return rounded;
}

/* Flushes subnormal numbers, as .ftz asks. PTX allows an error of 2 units in the last place; this has 0.5. */
float ex2_approx(float x) {
    if (fabsf(x) < 0x1p-126f) x = 0.0f;
    float r = (float)exp2((double)x);
    return r < 0x1p-126f ? 0.0f : r;
}

/* The upper 32 bits of the reciprocal: PTX defines no more of them, and the others as 0. */
double rcp_approx(double x) {
    if (fabs(x) < 0x1p-1022) x = copysign(0.0, x);
    return f64_of_bits(bits_of_f64(1.0 / x) >> 32 << 32);
}

/* --- fibres ------------------------------------------------------------------------------------------------------ */
void switch_stack(void **save, void *load) __attribute__((visibility("hidden")));
__asm__(".text\n.hidden switch_stack\n.globl switch_stack\nswitch_stack:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

typedef struct { void *top; char *stack; int ended, waits_at; } Fibre; /* waits_at: the line of a barrier */
static Fibre *fibres;
static int n_fibres;
static void *scheduler;
static const uint64_t *kernel_parameters;
static int block_size, grid_size, skipped_barrier;

void barrier(int line) {
    if (line == skipped_barrier) return;
    fibres[this_thread].waits_at = line;
    switch_stack(&fibres[this_thread].top, scheduler);
}

static void end_thread(void) {
    fibres[this_thread].ended = 1;
    switch_stack(&fibres[this_thread].top, scheduler);
    abort();
}

static void fibre_main(void) {
    kernel(kernel_parameters, this_thread, block_size, this_block, grid_size);
    end_thread();
}

static void make_fibres(int n) {
    if (n <= n_fibres) return;
    fibres = realloc(fibres, n * sizeof(Fibre));
    for (; n_fibres < n; n_fibres++)
        fibres[n_fibres].stack =
            mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* The first switch to the fibre pops six registers and returns into fibre_main, on an aligned stack. */
static void start_fibre(Fibre *fibre) {
    void **top = (void **)(fibre->stack + STACK_BYTES - 64);
    *--top = 0;
    *--top = (void *)fibre_main;
    for (int k = 0; k < 6; k++) *--top = 0;
    fibre->top = top;
    fibre->ended = fibre->waits_at = 0;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */
#ifdef CHECKED
uint32_t nan_f32;
uint64_t nan_f64;
enum { NOBODY = -1, SEVERAL = -2 };
/* Of each byte: who stored it and who loaded it last, the block and the phase of that, and whether it is written. */
typedef struct {
    int64_t stored_in, loaded_in;
    int32_t stored_by, loaded_by, stored_block, loaded_block;
    uint8_t written;
} Shadow;
typedef struct { uint64_t base, size; int may_store, is_unknown; Shadow *shadow; } Region;
static Region *regions;
static int n_regions, last_region;
static int64_t phase; /* of a block, between two barriers */

static int lies_in(const Region *r, uint64_t address, int size) {
    return address - r->base < r->size && address - r->base + size <= r->size;
}

static Region *region_of(uint64_t address, int size) {
    if (n_regions && lies_in(&regions[last_region], address, size)) return &regions[last_region];
    for (int k = 0; k < n_regions; k++)
        if (lies_in(&regions[k], address, size)) return &regions[last_region = k];
    return NULL;
}

int may_load(uint64_t address, int size, int line) {
    Region *r = region_of(address, size);
    if (!r) { fault(OUTSIDE, line, "load outside of every array"); return 0; }
    if (address % size) fault(UNALIGNED, line, "load is not aligned");
    int races = 0, between = 0, unknown = 0;
    for (int k = 0; k < size; k++) {
        Shadow *s = &r->shadow[address - r->base + k];
        races |= s->stored_in == phase && s->stored_by != this_thread;
        between |= s->stored_block != NOBODY && s->stored_block != this_block;
        unknown |= !s->written;
        s->loaded_by = s->loaded_in == phase && s->loaded_by != this_thread ? SEVERAL : this_thread;
        s->loaded_in = phase;
        s->loaded_block = s->loaded_block == NOBODY || s->loaded_block == this_block ? this_block : SEVERAL;
    }
    if (races) fault(RACE, line, "loads what another thread stored since the barrier");
    if (between) fault(BETWEEN_BLOCKS, line, "loads what another block stored");
    if (unknown) fault(NOT_WRITTEN, line, "loads what nothing has written");
    return 1;
}

int may_store(uint64_t address, int size, int line, const void *value) {
    Region *r = region_of(address, size);
    if (!r) { fault(OUTSIDE, line, "store outside of every array"); return 0; }
    if (!r->may_store) fault(STORE_TO_INPUT, line, "stores to an input");
    if (address % size) fault(UNALIGNED, line, "store is not aligned");
    int stored = 0, loaded = 0, other_stored = 0, other_loaded = 0;
    for (int k = 0; k < size; k++) {
        Shadow *s = &r->shadow[address - r->base + k];
        stored |= s->stored_in == phase && s->stored_by != this_thread;
        loaded |= s->loaded_in == phase && s->loaded_by != this_thread;
        other_stored |= s->stored_block != NOBODY && s->stored_block != this_block;
        other_loaded |= s->loaded_block != NOBODY && s->loaded_block != this_block;
        s->stored_by = this_thread, s->stored_in = phase, s->stored_block = this_block, s->written = 1;
    }
    int same = !memcmp((void *)address, value, size);
    if (stored) fault(same ? SAME_VALUE : RACE, line, "stores what another thread stored since the barrier");
    if (loaded) fault(RACE, line, "stores what another thread loaded since the barrier");
    if (other_stored) fault(BETWEEN_BLOCKS, line, "stores what another block stored");
    if (other_loaded) fault(BETWEEN_BLOCKS, line, "stores what another block loaded");
    return 1;
}

static void make_regions(const uint64_t *table, int n) {
    n_regions = n, last_region = 0, phase = 1;
    regions = calloc(n ? n : 1, sizeof(Region));
    for (int k = 0; k < n; k++, table += 4) {
        regions[k] = (Region){table[0], table[1], table[2], table[3], malloc(table[1] * sizeof(Shadow))};
        for (uint64_t j = 0; j < regions[k].size; j++)
            regions[k].shadow[j] = (Shadow){0, 0, NOBODY, NOBODY, NOBODY, NOBODY, !regions[k].is_unknown};
    }
}

static void free_regions(void) {
    for (int k = 0; k < n_regions; k++) free(regions[k].shadow);
    free(regions);
}
#endif

/* --- launch ------------------------------------------------------------------------------------------------------ */
static uint64_t draw(uint64_t *state) { /* xorshift */
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* 0: in order; 1: backwards; more: at random. */
static void shuffle(int *numbers, int n, int order, uint64_t *state) {
    for (int k = 0; k < n; k++) numbers[k] = order == 1 ? n - 1 - k : k;
    for (int k = n - 1; order > 1 && k > 0; k--) {
        int j = draw(state) % (k + 1), number = numbers[k];
        numbers[k] = numbers[j], numbers[j] = number;
    }
}

/* Run each thread of the block until it waits or ends; the number of those that wait. */
static int run_phase(const int *threads) {
    int waiting = 0, line = 0, differ = 0;
    for (int k = 0; k < block_size; k++) {
        Fibre *fibre = &fibres[this_thread = threads[k]];
        if (fibre->ended) continue;
        switch_stack(&scheduler, fibre->top);
        if (fibre->ended) continue;
        differ |= waiting && fibre->waits_at != line;
        line = fibre->waits_at;
        waiting++;
    }
    if (differ) report(BARRIER, line, "threads of the block wait at different barriers");
    if (waiting && waiting < block_size) report(BARRIER, line, "threads of the block have ended while others wait");
    return waiting;
}

/* table: of each array its address, bytes, whether it may be stored to, and whether its content is unknown.
   skipped: the line of a barrier that nobody waits at, 0 for none. counted: one number for each fault. */
__attribute__((visibility("default"))) void launch(
    const uint64_t *parameters, int grid, int block, int order, int skipped, const uint64_t *table, int n_arrays,
    uint64_t *counted, char *text, int text_bytes) {
    uint64_t state = 88172645463325252ull + order;
    int *blocks = malloc(grid * sizeof(int)), *threads = malloc(block * sizeof(int));
    kernel_parameters = parameters, block_size = block, grid_size = grid, skipped_barrier = skipped;
    counts = counted, messages = text, room = text_bytes;
    text[0] = 0;
    make_fibres(block);
#ifdef CHECKED
    nan_f32 = order % 2 ? 0xffc00000u : 0x7fffffffu;
    nan_f64 = order % 2 ? 0xfff8000000000000ull : 0x7fffffffffffffffull;
    make_regions(table, n_arrays);
#endif
    shuffle(blocks, grid, order, &state);
    for (int b = 0; b < grid; b++) {
        this_block = blocks[b];
        for (int t = 0; t < block; t++) start_fibre(&fibres[t]);
        int waiting;
        do {
            shuffle(threads, block, order, &state);
            waiting = run_phase(threads);
#ifdef CHECKED
            phase++;
#endif
        } while (waiting);
    }
#ifdef CHECKED
    free_regions();
#endif
    free(blocks);
    free(threads);
}
