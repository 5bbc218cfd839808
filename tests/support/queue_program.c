/* A queue program written from the table of exit codes: PROGRAM FOLDER [ACT …], acts done in this order.

   message      read descriptor 0 to its end          envelope     read descriptor 1 to its end
   close        close descriptor 0
   say TEXT     write TEXT to descriptor 2            shout        write to it for ever
   say6 TEXT    write TEXT to descriptor 6
   queue        what was read is queued: exit 54 where the envelope is not whole
   exit N       end so                                signal N     end so
   here         leave a file PID.here                 hang         for ever
   child        leave a child that hangs, with all descriptors, in the same process group
   environment  leave the environment in PID.environ, cwd, ids and open descriptors in front

   None given: message envelope queue exit 0. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;
static char *folder;
static char envelope[1 << 20];
static size_t envelope_size;

static char *path(const char *suffix)
{
    static char name[4096];
    snprintf(name, sizeof name, "%s/%d%s", folder, (int)getpid(), suffix);
    return name;
}

static void put(int fd, const char *octets, size_t size)
{
    while (size) {
        ssize_t written = write(fd, octets, size);
        if (written <= 0)
            _exit(53);
        octets += written;
        size -= written;
    }
}

static void message(void)
{
    char piece[65536];
    ssize_t got;
    int fd = open(path(".msg"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    while ((got = read(0, piece, sizeof piece)) > 0)
        put(fd, piece, got);
    close(fd);
}

static void take_envelope(void)
{
    ssize_t got;
    while ((got = read(1, envelope + envelope_size, sizeof envelope - envelope_size)) > 0)
        envelope_size += got;
}

static void queue(void)
{
    char from[4096];
    int fd;
    if (envelope_size < 3 || envelope[envelope_size - 1] || envelope[envelope_size - 2] || envelope[0] != 'F')
        _exit(54);
    strcpy(from, path(".new"));
    fd = open(from, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    put(fd, envelope, envelope_size);
    close(fd);
    if (rename(from, path(".env")) == -1)
        _exit(53);
}

static void hang(void)
{
    for (;;)
        pause();
}

static void environment(void)
{
    FILE *file = fopen(path(".environ"), "w");
    char cwd[4096];
    int fd;
    fprintf(file, "cwd %s\n", getcwd(cwd, sizeof cwd));
    fprintf(file, "ids %d %d\n", (int)getuid(), (int)geteuid());
    fprintf(file, "leads %d\n", getpgrp() == getpid());
    for (fd = 0; fd < 1000; fd++)
        if (fcntl(fd, F_GETFD) != -1 && fd != fileno(file))
            fprintf(file, "fd %d\n", fd);
    for (fd = 0; environ[fd]; fd++)
        fprintf(file, "env %s\n", environ[fd]);
    fclose(file);
}

int main(int argc, char **argv)
{
    char *plain[] = {"message", "envelope", "queue"};
    char **acts = argc > 2 ? argv + 2 : plain;
    int count = argc > 2 ? argc - 2 : 3;
    folder = argv[1];
    for (int i = 0; i < count; i++) {
        char *act = acts[i], *next = i + 1 < count ? acts[i + 1] : "";
        if (!strcmp(act, "message"))
            message();
        else if (!strcmp(act, "close"))
            close(0);
        else if (!strcmp(act, "envelope"))
            take_envelope();
        else if (!strcmp(act, "queue"))
            queue();
        else if (!strcmp(act, "say"))
            put(2, next, strlen(next)), i++;
        else if (!strcmp(act, "say6"))
            put(6, next, strlen(next)), i++;
        else if (!strcmp(act, "shout"))
            for (;;)
                put(2, "noise ", 6);
        else if (!strcmp(act, "exit"))
            _exit(atoi(next));
        else if (!strcmp(act, "signal"))
            raise(atoi(next));
        else if (!strcmp(act, "here"))
            close(open(path(".here"), O_WRONLY | O_CREAT, 0666));
        else if (!strcmp(act, "hang"))
            hang();
        else if (!strcmp(act, "environment"))
            environment();
        else if (!strcmp(act, "child")) {
            if (fork() == 0) {
                close(open(path(".here"), O_WRONLY | O_CREAT, 0666));
                hang();
            }
        } else
            _exit(100);
    }
    return 0;
}
