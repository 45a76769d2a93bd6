/* boot.S: from the reset of the CPU to machine.c in 64-bit mode, and back there at system calls and
 * exceptions. It lies in the ROM, 0xf0000 to 0xfffff. */
#include "machine.h"

    .section .note.GNU-stack, "", @progbits /* which is not executable */
    .section .reset, "ax"
    .code16
    ljmp $0xf000, $(start16 - ROM)
    .balign 16, 0xff

    .text
    .globl start16
start16:
    lgdtl %cs:(gdt_pointer - ROM)
    mov %cr0, %eax
    or $1, %al                         /* protected mode */
    mov %eax, %cr0
    ljmpl $CODE32, $start32

    .code32
start32:
    mov $DATA, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    /* Bochs 2.7 gives memory to a block of 128 KiB when it is first used, one after the other, but
     * has written the image as if it had all of its blocks: they are used in this order first. */
    mov $IMAGE, %esi
    mov $(IMAGE_BYTES / 0x20000), %ecx
1:  mov (%esi), %eax
    add $0x20000, %esi
    loop 1b
    /* The first GiB, in pages of 2 MiB, where it is. */
    mov $TABLES, %edi
    xor %eax, %eax
    mov $(3 * 4096 / 4), %ecx
    rep stosl
    movl $(TABLES + 4096 + 3), TABLES
    movl $(TABLES + 8192 + 3), TABLES + 4096
    mov $(TABLES + 8192), %edi
    mov $0x83, %eax
2:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    cmp $0x40000000, %eax
    jb 2b
    mov $TABLES, %eax
    mov %eax, %cr3
    mov $0x40620, %eax                 /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx              /* EFER: system calls, long mode */
    rdmsr
    or $0x101, %eax
    wrmsr
    mov $0x80000033, %eax              /* paging, and floating-point errors as exceptions */
    mov %eax, %cr0
    ljmpl $CODE64, $start64

    .code64
start64:
    mov $LOADER_STACK, %esp
    fninit
    mov $0xd, %eax                     /* vector registers: all that the CPU has */
    xor %ecx, %ecx
    cpuid
    and $0xe7, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    xsetbv
    call run_program

/* The syscall instruction: number in rax, arguments in rdi, rsi, rdx; clobbers rcx, r11. It comes
 * with the program's stack, below whose pointer a function may hold 128 bytes. */
    .globl enter_system_call
enter_system_call:
    lea -128(%rsp), %rsp
    push %r11
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %rbp
    mov %rsp, %rbp
    and $-16, %rsp
    mov %rdx, %rcx
    mov %rsi, %rdx
    mov %rdi, %rsi
    mov %rax, %rdi
    call system_call
    mov %rbp, %rsp
    pop %rbp
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    popfq
    lea 128(%rsp), %rsp
    jmp *%rcx

/* Enters the program (rdi) with its stack (rsi). */
    .globl enter_program
enter_program:
    mov %rsi, %rsp
    xor %edx, %edx                     /* nothing to run at exit */
    xor %ebp, %ebp
    jmp *%rdi

/* Exceptions, EXCEPTION_BYTES apart; some push a code before the address. */
    .globl exceptions
    .balign EXCEPTION_BYTES
exceptions:
    .set vector, 0
    .rept EXCEPTIONS
    .balign EXCEPTION_BYTES
    .if (0x27d00 >> vector) & 1
    pop %rax
    .endif
    mov $vector, %edi
    jmp 3f
    .set vector, vector + 1
    .endr
3:  pop %rsi
    mov %cr2, %rdx
    and $-16, %rsp
    call exception

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff           /* CODE32 */
    .quad 0x00cf93000000ffff           /* DATA */
    .quad 0x00af9b000000ffff           /* CODE64 */
    .quad 0x00cf93000000ffff           /* data, after CODE64 as syscall wants it */
gdt_pointer:
    .word . - gdt - 1
    .long gdt
