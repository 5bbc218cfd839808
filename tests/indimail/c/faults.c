/* Does harm: the sender's or the recipient's local part says which. Each function can do each of it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "smtp_plugin.h"

static jmp_buf start;
static char reply[400];

static volatile char *nowhere;

static int deep(volatile int depth)
{
	volatile char room[4096];
	room[depth % 4096] = 1;
	return deep(depth + 1) + room[0];
}

static void *idle(void *nothing) { sleep(40); return nothing; }

static int act(const char *what, char **mesg)
{
	pthread_t thread;
	if (!strncmp(what, "segv", 4)) *nowhere = 1;
	if (!strncmp(what, "abort", 5)) abort();
	if (!strncmp(what, "exit0", 5)) exit(0);
	if (!strncmp(what, "exit3", 5)) exit(3);
	if (!strncmp(what, "quit", 4)) _exit(0);
	if (!strncmp(what, "longjmp", 7)) longjmp(start, 1);
	if (!strncmp(what, "overflow", 8)) return deep(0);
	if (!strncmp(what, "loop", 4)) for (;;) ;
	if (!strncmp(what, "sleep", 5)) sleep(40);
	if (!strncmp(what, "blocked", 7)) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, 0);
		for (;;) ;
	}
	if (!strncmp(what, "flood", 5)) for (;;) write(1, reply, sizeof reply);
	if (!strncmp(what, "frame", 5)) {       /* speaks on the channel itself */
		send(3, "{\"n\":1}", 7, 0);
		return 0;
	}
	if (!strncmp(what, "tries", 5)) {       /* all refused: what each came to, in the reply */
		int forked = fork();
		if (!forked) _exit(0);
		int fork_errno = errno, made = pthread_create(&thread, 0, idle, 0);
		int file = open("/etc/passwd", O_RDONLY), file_errno = errno;
		int made_file = open("/tmp/forkd-indimail-was-here", O_WRONLY | O_CREAT, 0600), write_errno = errno;
		int sock = socket(AF_INET, SOCK_STREAM, 0), sock_errno = errno;
		int shell = execl("/bin/sh", "sh", "-c", "exit", (char *) 0), exec_errno = errno;
		int sent = kill(getppid(), SIGKILL), kill_errno = errno;
		snprintf(reply, sizeof reply,
			"550 5.7.1 fork=%d/%d thread=%d open=%d/%d write=%d/%d socket=%d/%d exec=%d/%d kill=%d/%d\r\n",
			forked, fork_errno, made, file, file_errno, made_file, write_errno, sock, sock_errno, shell,
			exec_errno, sent, kill_errno);
		*mesg = reply;
		return 1;
	}
	return 0;
}

static int mail(TEXT remote_ip, TEXT from, char **mesg) { (void) remote_ip; return act(from, mesg); }

static int rcpt(TEXT remote_ip, TEXT from, TEXT to, char **mesg)
{
	(void) remote_ip; (void) from;
	return act(to, mesg);
}

static char wanted[64];

static int data(TEXT local, TEXT remote_ip, TEXT remote_host, TEXT info, char **mesg)
{
	(void) local; (void) remote_ip; (void) remote_host; (void) info;
	return act(wanted, mesg);
}

static int remember(TEXT remote_ip, TEXT from, TEXT to, char **mesg)
{
	if (!strncmp(to, "data-", 5)) {
		strncpy(wanted, to + 5, sizeof wanted - 1);
		return 0;
	}
	return rcpt(remote_ip, from, to, mesg);
}

static PLUGIN plugin = {mail, remember, data};

PLUGIN *plugin_init(void)
{
	if (setjmp(start)) return &plugin;
	return &plugin;
}
