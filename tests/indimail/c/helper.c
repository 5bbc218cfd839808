/* A library of a plugin's own. */
char *helped(void) { return "550 5.7.1 helped\r\n"; }
