/* machine.h: where things lie in the memory of the machine. */
#ifndef MACHINE_H
#define MACHINE_H

#define ROM 0xf0000
#define TABLES 0x100000 /* page tables: three of boot.S, then those that mprotect needs */
/* From 0x200000 the variables of machine.c. */
#define LOADER_STACK 0x300000 /* ends of stacks: until the program begins, and the program's */
#define STACK 0x400000        /* static programs lie after it */
#define HEAP 0x2000000        /* brk; mmap begins where it ends */
#define HEAP_BYTES 0x8000000
#define IMAGE 0x30000000 /* the arguments, ARGUMENT_BYTES, and the program's file */
#define IMAGE_BYTES 0x1000000
#define ARGUMENT_BYTES 4096

#define CODE32 8 /* segments */
#define DATA 16
#define CODE64 24

#define EXCEPTIONS 32
#define EXCEPTION_BYTES 16

#endif
