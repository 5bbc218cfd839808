/* Attacks while it is loaded, and works all the same: what it could not do it says in its first reply. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "smtp_plugin.h"

static char reply[300];

static void *idle(void *nothing) { for (;;) pause(); return nothing; }

static void __attribute__((constructor)) attack(void)
{
	pthread_t thread;
	int made = pthread_create(&thread, 0, idle, 0);
	int forked = fork();
	if (!forked) for (;;) pause();
	int connected = socket(AF_UNIX, SOCK_STREAM, 0);
	int listener = dup(4), closed = close(4), killed = kill(-1, SIGKILL);
	void *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int turned = mprotect(reply - (unsigned long) reply % 4096, 4096, PROT_READ | PROT_EXEC);
	snprintf(reply, sizeof reply,
		"550 5.7.1 thread=%d fork=%d socket=%d dup=%d close=%d kill=%d code=%d turned=%d\r\n", made != 0, forked,
		connected, listener, closed, killed, code == MAP_FAILED, turned);
}

static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	(void) remote_ip; (void) from;
	*mesg = reply;
	return 1;
}

static PLUGIN plugin = {mail, 0, 0};

PLUGIN *plugin_init(void) { return &plugin; }
