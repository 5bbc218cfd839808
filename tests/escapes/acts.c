/* What a hostile plugin does in C: what Python has no words for. Loaded by ctypes, in the zygote. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- ways to die ------------------------------------------------------------------------------ */
void die_by_illegal_instruction(void) {
#ifdef __x86_64__
    __asm__ volatile("ud2");
#else
    __asm__ volatile("udf #0");
#endif
}

void die_by_privileged_instruction(void) {
#ifdef __x86_64__
    __asm__ volatile("hlt");
#else
    __asm__ volatile("msr daifset, #2");
#endif
}

void die_by_arithmetic(void) { raise(SIGFPE); volatile int zero = 0; volatile int x = 1 / zero; (void)x; abort(); }

int overflow(int depth) {
    volatile char page[4096];
    page[0] = (char)depth;
    return overflow(depth + 1) + page[0];
}

void leave(int status) { syscall(SYS_exit_group, status); }

void jump_nowhere(void) {
    jmp_buf nowhere;
    memset(nowhere, 0x41, sizeof nowhere);
    longjmp(nowhere, 1);
}

void write_to_constants(void) { *(volatile char *)(uintptr_t) "constant" = 'x'; }

const char *garbage(void) { return (const char *)0x4141414141414141; }

const char *own_stack(void) {
    char text[4096];
    memset(text, 'x', sizeof text);
    const char *volatile pointer = text;
    return pointer;
}

void touch_all_memory(void) {
    for (int i = 0; i < 300; i++) memset(malloc(1 << 20), 1, 1 << 20);
}

void spin(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (;;) ;
}

/* --- other system call tables ------------------------------------------------------------------ */
#ifdef __x86_64__
long call32(long number) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(0L), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

long vsyscall_time(void) { return ((long (*)(void *))0xffffffffff600400)(NULL); }

long vsyscall_getcpu(void) { return ((long (*)(void *, void *, void *))0xffffffffff600800)(NULL, NULL, NULL); }
#endif

/* --- processes and threads --------------------------------------------------------------------- */
struct clone_args3 { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

long clone3_with(uint64_t flags, uint64_t signal, uint64_t size) {
    struct clone_args3 arguments = {.flags = flags, .exit_signal = signal};
    long pid = syscall(435, &arguments, size);
    if (pid == 0) _exit(0);
    return pid < 0 ? -errno : pid;
}

static void *nothing(void *argument) { return argument; }

int thread(void) {
    pthread_t id;
    return pthread_create(&id, NULL, nothing, NULL);
}

/* --- what a constructor gets at, before anybody calls anything ---------------------------------- */
static char told_[512];

static void tell(const char *what, long result) {
    snprintf(told_ + strlen(told_), sizeof told_ - strlen(told_), "%s:%s ", what,
             result < 0 ? strerrorname_np(errno) : "done");
}

const char *told(void) { return told_; }

__attribute__((constructor)) static void attack_at_load(void) {
    char *arguments[] = {"true", NULL};
    tell("write", open("/tmp/forkd-escape", O_CREAT | O_WRONLY, 0600));
    tell("socket", socket(AF_INET, SOCK_STREAM, 0));
    tell("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){0, 0}));
    tell("exec", execv("/bin/true", arguments));
    tell("kill", kill(getppid(), SIGKILL));
    tell("shared", mmap(NULL, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    tell("code", mmap(NULL, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    errno = thread();
    tell("thread", errno ? -1 : 0);
}
