/* Refuses with what it was given: arguments, environment, how often it was called, and what it may read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include "smtp_plugin.h"

extern char **environ;

static char reply[900];
static int calls;
static TEXT kept;       /* a pointer to the sender, from an earlier call */
static int inits;

static const char *shown(const char *text) { return text ? *text ? text : "(empty)" : "(null)"; }

/* As the support library of IndiMail does it: not by getenv. */
static const char *of_environ(const char *name)
{
	size_t length = strlen(name);
	for (char **each = environ; each && *each; each++)
		if (!strncmp(*each, name, length) && (*each)[length] == '=') return *each + length + 1;
	return 0;
}

static int variables(void)
{
	int count = 0;
	for (char **each = environ; each && *each; each++) count++;
	return count;
}


static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	calls++;
	kept = from;
	if (!strncmp(from, "setenv@", 7)) { setenv("LEFT_BEHIND", "yes", 1); return 0; }
	if (!strncmp(from, "pass@", 5)) return 0;
	if (!strncmp(from, "env-", 4)) {       /* env-name@…: that variable, seen both ways */
		char name[64] = "";
		for (size_t at = 0; from[4 + at] && from[4 + at] != '@' && at < 63; at++)
			name[at] = from[4 + at] >= 'a' && from[4 + at] <= 'z' ? from[4 + at] - 32 : from[4 + at];
		snprintf(reply, sizeof reply, "550 5.7.1 %s=%s,%s of %d\r\n", name, shown(getenv(name)),
			shown(of_environ(name)), variables());
	} else if (!strncmp(from, "file@", 5)) {
		char text[64] = "";
		const char *path = getenv("READS");
		int file = open(path ? path : "/nowhere", O_RDONLY);
		ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
		if (size > 0 && text[size - 1] == '\n') text[size - 1] = 0;
		snprintf(reply, sizeof reply, "550 5.7.1 file: %s\r\n", size < 0 ? "cannot be read" : text);
	} else
		snprintf(reply, sizeof reply, "550 5.7.1 mail %s %s call %d init %d\r\n", shown(remote_ip),
			shown(from), calls, inits);
	*mesg = reply;
	return 1;
}

static int rcpt(TEXT remote_ip, TEXT from, TEXT to, char **mesg)
{
	calls++;
	if (!strncmp(to, "pass", 4)) return 0;
	snprintf(reply, sizeof reply, "550 5.7.1 rcpt %s %s %s call %d init %d\r\n", shown(remote_ip), shown(from),
		shown(to), calls, inits);
	*mesg = reply;
	if (!strncmp(to, "write", 5)) {
		*(char *) to = 'X';
		*(char *) from = 'X';
		*(char *) remote_ip = 'X';
		return 0;
	}
	return 1;
}

static int data(TEXT local, TEXT remote_ip, TEXT remote_host, TEXT info, char **mesg)
{
	calls++;
	if (getenv("SHOWS_KEPT")) {
		snprintf(reply, sizeof reply, "550 5.7.1 from %s\r\n", shown(kept));
		*mesg = reply;
		return 1;
	}
	snprintf(reply, sizeof reply, "550 5.7.1 data %s %s %s %s call %d\r\n", shown(local), shown(remote_ip),
		shown(remote_host), shown(info), calls);
	*mesg = reply;
	return 1;
}

static PLUGIN plugin = {mail, rcpt, data};

PLUGIN *plugin_init(void) { inits++; return &plugin; }

PLUGIN *another_name(void) { inits += 10; return &plugin; }
