"""PROCESS master: starts every other process, replaces what dies, stops all of them in order.

One thread, one poll loop, no timers but the loop's own, no network input. It knows the others from a
table (roles.py) and treats them alike: a child has a process id, a channel, and a slot of the pool.

main.py        the start-up sequence and the way out; the card
supervisor.py  the loop: what happened, what is due, what is late
roster.py      the places there are: they come and go
generation.py  one configuration in force: its places, and what each process is given
holdings.py    what it has open: sockets, zygotes, certificates
ground.py      what is the same for all generations (ground_paths.py: where each has its sockets)
reload.py      how a new configuration comes into force, step by step
reload_report.py  what changed, and what of it needs a restart
given.py       what a role goes by: is another process needed after a reload?
place.py       where one process at a time is    watch.py    whose descriptor can be read
lives.py       its births and deaths             hearing.py  what it says, and what follows
pool.py        pure: when is a process started, replaced, given up, killed
sizing.py      pure: how many workers, and whose time is over; workforce.py does it
roles.py       the table; `main` of each role by name, so that nothing of it is imported here
child.py       fork, close, drop, run a role
zygotes.py     the same for an exec'd zygote; zygote_child.py is its process
listeners.py   SMTP sockets, ours or systemd's       runtime.py  data_dir: lock, folders, our own sockets
privileges.py  who runs as whom                      signals.py  signals become bytes
metrics_slots.py  where processes keep what they have counted
notify.py      systemd                               status.py   what `forkd status` is told
output.py      what a zygote prints, bounded         folders.py  what lies in data_dir, and whose it is
shutdown.py    the way down, phase by phase          greeting.py a newcomer's first screen
plugin_files.py  may a plugin's files be believed?   plugin_loaded.py  are they still those of the start?
plugin_replaced.py  was a file replaced that sessions need?
zygote_places.py  which zygotes will there be, and do the walls around them stand?
rights.py      what the table lets a role reach, as paths and ports of this configuration
next_hop_files.py  passwords and certificates for other servers; next_hop_rights.py  what reaching them needs
refusals.py    which system calls the kernel refused a plugin
role_trial.py  do those walls hold? each role's are tried before it starts
trust.py       which zygote must end though it lives  census.py  whose is every process of a plugin?

Stop order: workers (they hold transactions), zygotes, qmgr (it may still be told of mail), anvil,
admin (it carries the answer to whoever asked for the stop).

When master is killed, nothing is left: roles see end of file on their channel and end by themselves,
zygotes have a parent-death signal, sandboxes hang on their workers' leashes, admin removes the
sockets and the lock (runtime.py says why that cannot hit a successor).
"""
