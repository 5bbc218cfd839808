/* Refuses by what the client says: the sender's local part names a behaviour, so one file tries many. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "smtp_plugin.h"

static char unterminated[] = {'5', '5', '0', ' ', 'x'};

static int starts(TEXT text, const char *with) { return !strncmp(text, with, strlen(with)); }

static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	static char buffer[9000];
	(void) remote_ip;
	if (starts(from, "permanent@")) { *mesg = "550 5.7.1 not from you\r\n"; return 1; }
	if (starts(from, "temporary@")) { *mesg = "451 4.7.1 come again\r\n"; return 1; }
	if (starts(from, "close@")) { *mesg = "421 4.7.0 go away\r\n"; return 1; }
	if (starts(from, "negative@")) { *mesg = "553 sorry (#5.7.1)\r\n"; return -1; }
	if (starts(from, "two@")) { *mesg = "530 two\r\n"; return 2; }
	if (starts(from, "null@")) return 1;
	if (starts(from, "nocrlf@")) { *mesg = "550 no line end"; return 1; }
	if (starts(from, "success@")) { *mesg = "250 ok\r\n"; return 1; }
	if (starts(from, "inject@")) { *mesg = "550 no\r\n250 ok\r\n"; return 1; }
	if (starts(from, "lines@")) { *mesg = "550-first\r\n550 second\r\n"; return 1; }
	if (starts(from, "unprintable@")) { *mesg = "550 a\001b\r\n"; return 1; }
	if (starts(from, "empty@")) { *mesg = ""; return 1; }
	if (starts(from, "syntax@")) { *mesg = "503 5.5.1 odd\r\n"; return 1; }
	if (starts(from, "long@")) {
		memset(buffer, 'x', sizeof buffer - 1);
		memcpy(buffer, "550 ", 4);
		*mesg = buffer;
		return 1;
	}
	if (starts(from, "unterminated@")) { *mesg = unterminated; return 1; }
	if (starts(from, "garbage@")) { *mesg = (char *) 0x41414141; return 1; }
	if (starts(from, "ignored@")) { *mesg = (char *) 0x41414141; return 0; }
	return 0;
}

static PLUGIN plugin = {mail, 0, 0};

PLUGIN *plugin_init(void) { return &plugin; }
