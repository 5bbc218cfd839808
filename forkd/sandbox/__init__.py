"""How is a plugin confined, forked, called and killed? (THREATS.md: against whom; PROTOCOL.md: the bytes.)

Four sides, four trust levels; a module belongs to exactly one of them:

    master    launch, policy, syscalls, selftest   starts and judges zygotes; never loads a plugin
    zygote    boot, zygote, confine, linux,        confines itself, then loads the plugin; hostile from
              python, probe                        then on
    sandbox   child                                a zygote's fork that serves one session
    worker    host, link, pool, output, report     makes the channels, calls, kills by dropping the leash

The zygote side uses the standard library and ctypes only, so that it runs under any plugin's
interpreter; whatever it imports can be read by a hostile plugin. `wire` holds the few constants both
ends of the zygote's socket share.

Life of a sandbox: the worker makes a channel (SEQPACKET), a leash and an output pipe, and passes the
sandbox's ends to the zygote. The zygote forks; the child moves its descriptors to fixed numbers,
closes the rest, arms its CPU timer and its leash, stacks its small filter, and reads its first frame.
Session over, deadline passed or protocol broken: the worker closes the leash and the kernel kills.
"""
