"""LIBRARY: which plugin is asked what, in which order, and what its answer means to the client.

    facts.py       what a session tells its plugins
    spec.py        HOOKS: one row per hook: arguments, verdicts, edits, codes; what a failure becomes
    given.py       plugins, hosts, sandboxes and messages, by protocol type
    scope.py       is this plugin asked about this session, this recipient?
    frames.py      what goes over: each fact once, each hook's arguments encoded once for all plugins
    addresses.py   is what a plugin calls an address one?
    checks.py      may this plugin say this, here? whatever it may not say is a breach
    changes.py     what the edits of all plugins at one hook come to, bounded as a whole
    asking.py      one plugin in one session: its sandbox, its time, its answer, its new body
    breaker.py     is a plugin broken for everyone? then it is not asked for a while
    shadow.py      a plugin that is only tried: asked when the reply has gone, compared, never obeyed
    walk.py        one hook from plugin to plugin: who sees what, when it is decided
    decision.py    what came of it: Decision for the worker, PluginRecord for the log
    dispatcher.py  Dispatcher (one per worker) and SessionHooks (one per session)

The worker runs SessionHooks.run() and obeys the Decision; it never sees a plugin's words. Nothing
here knows what a sandbox is made of: given.py says what a host must do.
"""
