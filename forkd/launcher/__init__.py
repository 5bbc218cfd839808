"""PROCESS: starts the queue programs that transports name (kind = "qmail-queue"), for qmgr.

    main.py       the loop: qmgr's requests, programs that end or are late, master, the clock
    spawning.py   one program: started with its descriptors, waited for, killed with its process group

The one role that may exec, and the one without no_new_privs and Landlock: a queue program is setuid, and what
it needs is its own affair (sandbox/THREATS.md). It is there only where such a transport is configured.
What is started is said by the configuration alone: a request names a transport, never a program, an argument
or a variable. One connection is one program: its answer is the exit status, its end is the program's.
"""
