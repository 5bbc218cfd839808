"""How is a plugin confined, forked, called and killed? (THREATS.md: against whom; PROTOCOL.md: the bytes.)

Four sides, four trust levels; a module belongs to exactly one of them:

    master    spec, launch, policy, syscalls,      starts and judges zygotes, ends them; never loads a plugin
              profiles, executables, interpreter,
              reach,
              namespaces, mounts, cgroups,         what is around a zygote before it starts
              outside, ending, selftest, trial,
              cgroup_trial, finding
    zygote    boot, zygote, confine, linux,        confines itself, then loads the plugin; hostile from
              crowd, python, probe, tries          then on (the last two are the self-test's)
              program                              starts a program instead, and loads nothing of it
    sandbox   child                                a zygote's fork that serves one session
    worker    host, held, deaths, answers, kennel, makes the channels, calls, shares out, kills by
              shares, pool, link, programs, wear,  dropping the leash
              output, report
    roles     role_walls, role_syscalls            how worker, qmgr, … wall themselves in
    both      audit                                refused system calls by name; master hears them
    kit       learn, learn_policy, calls           learn mode, for plugins' authors; in the zygote: learner

The zygote side uses the standard library and ctypes only, so that it runs under any plugin's
interpreter; whatever it imports can be read by a hostile plugin. `wire` holds the few constants both
ends of the zygote's socket share.

Life of a sandbox: the worker makes a channel (SEQPACKET), a leash and an output pipe, and passes the
sandbox's ends to the zygote. The zygote forks; the child moves its descriptors to fixed numbers,
closes the rest, lowers its priority, arms its CPU timer and its leash, stacks its small filter, and
reads its first frame. Session over, deadline passed or protocol broken: the worker closes the leash and
the kernel kills. With limits.reuse a sandbox whose session ended well serves others before that.

Life of a program's run: as a sandbox', but the new process execs, has no channel, and a process group of
its own, which the leash kills; the worker's answer is its exit status.
"""
