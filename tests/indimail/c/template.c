/* The shape of the template that comes with qmail-smtpd: each function sets a text and lets it go on. */
#include "smtp_plugin.h"

static int mail(TEXT remote_ip, TEXT from, char **mesg)
{
	(void) remote_ip; (void) from;
	*mesg = "530 mail\r\n";
	return 0;
}

static int rcpt(TEXT remote_ip, TEXT from, TEXT to, char **mesg)
{
	(void) remote_ip; (void) from; (void) to;
	*mesg = "530 rcpt\r\n";
	return 0;
}

static int data(TEXT local, TEXT remote_ip, TEXT remote_host, TEXT info, char **mesg)
{
	(void) local; (void) remote_ip; (void) remote_host; (void) info;
	*mesg = "530 data\r\n";
	return 0;
}

static PLUGIN plugin = {mail, rcpt, data};

PLUGIN *plugin_init(void) { return &plugin; }
