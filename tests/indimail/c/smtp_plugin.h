/* The ABI of qmail-smtpd's plugins, written from its description; TEXT is what strings are: today
 * const char *, in 2011 char * (-DTEXT="char *"). */
#ifndef SMTP_PLUGIN_H
#define SMTP_PLUGIN_H

#ifndef TEXT
#define TEXT const char *
#endif

typedef struct {
	int (*mail_func)(TEXT remote_ip, TEXT from, char **mesg);
	int (*rcpt_func)(TEXT remote_ip, TEXT from, TEXT rcpt, char **mesg);
	int (*data_func)(TEXT local_host, TEXT remote_ip, TEXT remote_host, TEXT remote_info, char **mesg);
} PLUGIN;

PLUGIN *plugin_init(void);

#endif
