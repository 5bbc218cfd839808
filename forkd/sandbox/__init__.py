"""How is a plugin confined, forked, called and killed? (THREATS.md: against whom; PROTOCOL.md: the bytes.)

Four sides, four trust levels; a module belongs to exactly one of them:

    master    spec, configured, launch, policy,    starts and judges zygotes, ends them; never loads a plugin
              syscalls, profiles, executables,
              interpreter, reach,
              namespaces, mounts, cgroups,         what is around a zygote before it starts
              outside, ending, processes, audit,
              selftest, trial, cgroup_trial, finding
    zygote    boot, zygote, confine, landlock,     confines itself, then loads the plugin; hostile from
              linux, crowd, python, probe, tries   then on (the last two are the self-test's)
              program                              starts a program instead, and loads nothing of it
              indimail, indimail_trial             tries compiled plugins in a fork, and loads nothing of them
    sandbox   child                                a zygote's fork that serves one session
              indimail_abi, indimail_reply         loads and calls compiled plugins, and reads their texts
    worker    host, held, deaths, answers, kennel, makes the channels, calls, shares out, kills by
              turns, shares, pool, link, wear,     dropping the leash
              output, report, brokering, named,
              program_plugin, program_runs,        asks a program as a plugin is asked; runs one that is
              program_output, program_exits,       none (checkpassword); qmgr runs pipes so
              program_environment, programs
    roles     role_walls, role_syscalls            how worker, qmgr, … wall themselves in
    kit       learn, learn_policy, refusal, calls  learn mode, for plugins' authors; in the zygote: learner

The zygote side uses the standard library and ctypes only, so that it runs under any plugin's
interpreter; whatever it imports can be read by a hostile plugin. `wire` holds the few constants both
ends of the zygote's socket share.

Life of a sandbox: the worker makes a channel (SEQPACKET), a leash and an output pipe, and passes the
sandbox's ends to the zygote. The zygote forks; the child moves its descriptors to fixed numbers,
closes the rest, lowers its priority, arms its CPU timer and its leash, stacks its small filter, and
reads its first frame. Session over, deadline passed or protocol broken: the worker closes the leash and
the kernel kills. With limits.reuse a sandbox whose session ended well serves others before that.

Life of a program's run: as a sandbox', but the new process execs, has no channel, and a process group of
its own, which the leash kills; its answer is its exit status, and its output where it is a plugin.
"""
