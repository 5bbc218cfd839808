/* Cannot be used; -DHOW says in which way. */
#include <stdlib.h>
#include <unistd.h>
#include "smtp_plugin.h"

enum { NULL_TABLE = 1, GARBAGE_TABLE, NO_SYMBOL, CRASH, EXIT, HANG, LOOP, UNDEFINED, CONSTRUCTOR_CRASH, CLAIM };

static PLUGIN plugin;

#if HOW == 8
extern int nobody_has_this(void);
#ifdef FUNCTION_ONLY
int uses(void) { return nobody_has_this(); }
#else
extern int nobody_has_this_variable;
int uses(void) { return nobody_has_this() + nobody_has_this_variable; }
#endif
#endif

#if HOW == 9
static void __attribute__((constructor)) at_load(void) { abort(); }
#endif

#if HOW == 10
/* Says itself that all is well, in the words of older trials, and goes. */
static void __attribute__((constructor)) claim(void)
{
	write(3, "B0\nD", 4);
	_exit(0);
}
#endif

#if HOW != 3
PLUGIN *plugin_init(void)
{
	volatile char *nowhere = 0;
	switch (HOW) {
	case NULL_TABLE: return 0;
	case GARBAGE_TABLE: return (PLUGIN *) 0x41414141;
	case CRASH: *nowhere = 1; break;
	case EXIT: exit(3);
	case HANG: sleep(60); break;
	case LOOP: for (;;) ;
	}
	return &plugin;
}
#endif
