/* PID 1 for `cargo xtask bench --hardening`: what programs ask of a kernel all day, each many times; writes what one of each
 * took by the time stamp counter, which counts instructions here, and switches the machine off. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

enum { MANY = 2000, FEW = 100, PAGES = 64 };

static int pipes[2], sockets[2];
static char block[4096];

static void call(void) { getppid(); }

static void through_a_pipe(void)
{
    write(pipes[1], block, sizeof block);
    read(pipes[0], block, sizeof block);
}

static void through_a_socket(void)
{
    write(sockets[1], block, 256);
    read(sockets[0], block, 256);
}

static void open_and_close(void) { close(open("/init", O_RDONLY)); }

static void map_and_touch(void)
{
    char *pages = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++)
        pages[i * 4096] = 1;
    munmap(pages, PAGES * 4096);
}

static void process(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, 0, 0);
}

static void program(void)
{
    pid_t child = vfork();
    if (child == 0) {
        execl("/init", "init", "done", (char *)0);
        _exit(1);
    }
    waitpid(child, 0, 0);
}

static void measure(const char *name, void (*work)(void), int times)
{
    work();
    unsigned long long start = __rdtsc();
    for (int i = 0; i < times; i++)
        work();
    printf("took %s %llu\n", name, (__rdtsc() - start) / times);
}

int main(int count, char **arguments)
{
    (void)arguments;
    if (count > 1 && getpid() != 1)
        return 0;
    printf("took boot %llu\n", (unsigned long long)__rdtsc());
    if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
        perror("pipe");
    measure("call", call, MANY);
    measure("pipe", through_a_pipe, MANY);
    measure("socket", through_a_socket, MANY);
    measure("open", open_and_close, MANY);
    measure("map", map_and_touch, FEW);
    measure("fork", process, FEW);
    measure("exec", program, FEW);
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 1;
}
