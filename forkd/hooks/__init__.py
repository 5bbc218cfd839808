"""LIBRARY: which plugin is asked what, in which order, and what its answer means to the client.

    facts.py       what a session tells its plugins
    spec.py        HOOKS: one row per hook: arguments, verdicts, codes; what a failure becomes
    checks.py      may this plugin say this, here? whatever it may not say is a breach
    frames.py      what goes over: each fact once, each hook's arguments encoded once for all plugins
    dispatcher.py  Dispatcher (one per worker) and SessionHooks (one per session): the order of asking

The worker runs SessionHooks.run() and obeys the Decision; it never sees a plugin's words. Nothing
here knows what a sandbox is made of: a host is given by the protocol types in dispatcher.py.
"""
