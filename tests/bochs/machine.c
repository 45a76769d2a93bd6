/* machine.c: loads a static Linux program, and answers its few system calls.
 *
 * All runs at one privilege level, with memory where it is. Output goes to the serial port; its
 * last line is the status of the program. */
#include "machine.h"

#include <elf.h>
#include <stddef.h>
#include <stdint.h>

enum { FAULT = 139, PAGE = 4096, LARGE_PAGE = 1 << 21 };
enum { ENOSYS = 38, ENOMEM = 12, PROT_NONE = 0 };

extern const char exceptions[], enter_system_call[];
_Noreturn void enter_program(uint64_t entry, uint64_t *stack);

/* ---- output -------------------------------------------------------------------------------- */

static void out(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void print_bytes(const char *text, size_t n) {
    enum { SERIAL = 0x3f8, FORMAT = SERIAL + 3, STATUS = SERIAL + 5, EIGHT_BITS = 3, EMPTY = 0x20 };
    out(FORMAT, EIGHT_BITS);
    for (size_t i = 0; i < n; i++) {
        while (!(in(STATUS)&EMPTY))
            ;
        out(SERIAL, (uint8_t)text[i]);
    }
    while (!(in(STATUS)&EMPTY << 1)) /* the last byte has left, too */
        ;
}

static void print(const char *text) {
    size_t n = 0;
    while (text[n])
        n++;
    print_bytes(text, n);
}

static void print_number(uint64_t number, unsigned base) {
    char digits[20];
    size_t first = sizeof digits;
    do {
        digits[--first] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    print_bytes(digits + first, sizeof digits - first);
}

/* Bochs ends when it reads this word at this port. */
static _Noreturn void stop(uint64_t status) {
    print("status ");
    print_number(status & 0xff, 10);
    print("\n");
    for (;;)
        for (const char *word = "Shutdown"; *word; word++)
            out(0x8900, (uint8_t)*word);
}

_Noreturn void exception(uint64_t vector, uint64_t instruction, uint64_t address) {
    print("exception ");
    print_number(vector, 10);
    print(", instruction at 0x");
    print_number(instruction, 16);
    if (vector == 14) { /* a page fault */
        print(", memory at 0x");
        print_number(address, 16);
    }
    print("\n");
    stop(FAULT);
}

/* ---- memory -------------------------------------------------------------------------------- */

static uint64_t heap_end, mapped_end, tables_end; /* set by run_program */

void *memset(void *to, int byte, size_t n) {
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

static uint64_t move_heap_end(uint64_t end) {
    if (end < HEAP || end > HEAP + HEAP_BYTES)
        return heap_end;
    if (end > heap_end)
        memset((void *)heap_end, 0, end - heap_end);
    return heap_end = end;
}

/* Memory that has been given back is not used again. */
static uint64_t map(uint64_t bytes) {
    const uint64_t start = mapped_end, size = (bytes + PAGE - 1) / PAGE * PAGE;
    if (size > IMAGE - start)
        return (uint64_t)-ENOMEM;
    memset((void *)start, 0, size);
    mapped_end = start + size;
    return start;
}

/* The entry of a page, whose large page is cut if need be. */
static uint64_t *page_entry(uint64_t address) {
    enum { ENTRIES = 512, LARGE = 0x80, PRESENT = 3 };
    uint64_t *large = (uint64_t *)(TABLES + 2 * PAGE) + address / LARGE_PAGE;
    if (*large & LARGE) {
        uint64_t *table = (uint64_t *)tables_end;
        for (uint64_t i = 0; i < ENTRIES; i++)
            table[i] = address / LARGE_PAGE * LARGE_PAGE + i * PAGE + PRESENT;
        *large = tables_end + PRESENT;
        tables_end += PAGE;
    }
    return (uint64_t *)(*large & -(uint64_t)PAGE) + address / PAGE % ENTRIES;
}

/* Pages fault or do not; that some are only to be read is not enforced. */
static uint64_t protect(uint64_t start, uint64_t bytes, uint64_t rights) {
    for (uint64_t at = start; at < start + bytes; at += PAGE) {
        uint64_t *entry = page_entry(at);
        *entry = rights == PROT_NONE ? *entry & ~(uint64_t)1 : *entry | 1;
        __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory");
    }
    return 0;
}

/* ---- system calls -------------------------------------------------------------------------- */

static void write_msr(uint32_t msr, uint64_t value) {
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t cycles(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

uint64_t system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
    enum { WRITE = 1, MMAP = 9, MPROTECT = 10, MUNMAP = 11, BRK = 12 };
    enum { EXIT = 60, ARCH_PRCTL = 158, CLOCK_GETTIME = 228, EXIT_GROUP = 231 };
    enum { SET_FS = 0x1002, FS_BASE = 0xc0000100u };
    switch (number) {
    case WRITE:
        print_bytes((const char *)b, c);
        return c;
    case MMAP:
        return map(b);
    case MPROTECT:
        return protect(a, b, c);
    case MUNMAP:
        return 0;
    case BRK:
        return move_heap_end(a);
    case ARCH_PRCTL:
        if (a == SET_FS)
            write_msr(FS_BASE, b);
        return 0;
    case CLOCK_GETTIME: /* of a CPU of 1 GHz, begun long after the epoch */
        ((uint64_t *)b)[0] = (1u << 30) + cycles() / 1000000000;
        ((uint64_t *)b)[1] = cycles() % 1000000000;
        return 0;
    case EXIT:
    case EXIT_GROUP:
        stop(a);
    default: /* C libraries can do without */
        return (uint64_t)-ENOSYS;
    }
}

static void catch_exceptions(void) {
    static struct gate {
        uint16_t low, segment, kind, middle;
        uint32_t high, unused;
    } gates[EXCEPTIONS];
    struct __attribute__((packed)) {
        uint16_t limit;
        const struct gate *gates;
    } pointer = {sizeof gates - 1, gates};
    for (size_t i = 0; i < EXCEPTIONS; i++)
        gates[i] = (struct gate){.low = (uint16_t)((uint64_t)exceptions + i * EXCEPTION_BYTES),
                                 .segment = CODE64,
                                 .kind = 0x8e00,
                                 .middle = ROM >> 16};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* ---- the program --------------------------------------------------------------------------- */

static const Elf64_Ehdr *load(const char *file) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(file + header->e_phoff);
    for (size_t i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD) {
            char *to = (char *)segments[i].p_vaddr;
            memcpy(to, file + segments[i].p_offset, segments[i].p_filesz);
            memset(to + segments[i].p_filesz, 0, segments[i].p_memsz - segments[i].p_filesz);
        }
    return header;
}

/* What Linux puts on the stack: the arguments (up to an empty one), no environment, and what C
 * libraries must know. */
static uint64_t *fill_stack(const char *argument, const Elf64_Ehdr *header, const char *file) {
    static uint64_t words[128];
    uint64_t *at = words + 1;
    for (; *argument; argument++) {
        *at++ = (uint64_t)argument;
        while (*argument)
            argument++;
    }
    words[0] = (uint64_t)(at - words - 1);
    at += 2; /* the ends of arguments and environment */
    const uint64_t auxiliary[][2] = {
        {AT_PAGESZ, PAGE},
        {AT_RANDOM, (uint64_t)file}, /* any 16 bytes */
        {AT_PHDR, (uint64_t)(file + header->e_phoff)},
        {AT_PHNUM, header->e_phnum},
        {AT_PHENT, header->e_phentsize},
        {AT_NULL, 0},
    };
    memcpy(at, auxiliary, sizeof auxiliary);
    const size_t n = (size_t)(at - words) + sizeof auxiliary / sizeof *at;
    uint64_t *stack = (uint64_t *)STACK - (n + 1) / 2 * 2; /* aligned to 16 bytes */
    memcpy(stack, words, n * sizeof *words);
    return stack;
}

_Noreturn void run_program(void) {
    enum { STAR = 0xc0000081u, LSTAR = 0xc0000082u };
    const char *arguments = (const char *)IMAGE, *file = arguments + ARGUMENT_BYTES;
    heap_end = HEAP;
    mapped_end = HEAP + HEAP_BYTES;
    tables_end = TABLES + 3 * PAGE;
    catch_exceptions();
    write_msr(STAR, (uint64_t)CODE64 << 32);
    write_msr(LSTAR, (uint64_t)enter_system_call);
    const Elf64_Ehdr *header = load(file);
    enter_program(header->e_entry, fill_stack(arguments, header, file));
}
