/* Refuses with what its library says. */
#include "smtp_plugin.h"

extern char *helped(void);

static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	(void) remote_ip; (void) from;
	*mesg = helped();
	return 1;
}

static PLUGIN plugin = {mail, 0, 0};

PLUGIN *plugin_init(void) { return &plugin; }
