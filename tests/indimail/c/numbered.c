/* One of a row: refuses the sender whose local part is its number, which is that in its file's name; 99: none. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "smtp_plugin.h"

static char reply[80];

int shared_name;        /* the same in each of them: they must not meet */

static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	(void) remote_ip;
	if (from[0] < '0' || from[0] > '9' || atoi(from) != shared_name) return 0;
	snprintf(reply, sizeof reply, "550 5.7.1 I am number %d\r\n", shared_name);
	*mesg = reply;
	return 1;
}

static PLUGIN plugin = {mail, 0, 0};

PLUGIN *plugin_init(void)
{
	Dl_info info;
	const char *name = dladdr(&plugin, &info) ? strrchr(info.dli_fname, '/') : 0;
	size_t digits = name ? strcspn(name, "0123456789") : 0;
	shared_name = name && name[digits] ? atoi(name + digits) : 99;
	return &plugin;
}
