"""How does an author run a plugin's hooks in a real sandbox, without a daemon?

For `forkd plugin new | test | bench | replay`:

    configured  a plugin's folder -> what forkd would make of it, all its wants granted
    samples     the sessions it is shown: built in, .eml files, a file of sessions
    stage       one zygote and a host of its sandboxes, as master and worker have them; or in learn mode
    brokered    its broker, where it was granted something
    watch       every call measured from outside: time, CPU, memory, page faults
    letter      the message, as a plugin is given it
    drive       a session from connect to disconnect, as a worker walks through it
    noted       refused calls, alike ones once
    advice      what an author does instead of what was refused
    uses        what its code uses that needs a grant, read from the source (`plugin check`)
    trial       all of it: what `plugin test` found
    bench       what a call costs, beside fork+exit+wait and a call in one process; floor/ measures these
    replay      a recorded failing call once more
    scaffold    a new plugin's folder; template/ has its files

Nothing of a plugin runs in the kit's own process: what it does, it does behind the walls.
"""
