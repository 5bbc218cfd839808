"""Configuration: from TOML text to frozen values everybody can trust.

    file ── lines (where is each key?) ──┐
    text ── tomllib ── reader ───────────┴─> schema structs ── checks ──> LoadedConfig
                         │                                     │
                         └──── problems, all of them ──────────┘──> ConfigError

schema         one struct per table of forkd.toml: every key, its default, the reason for it, its range;
               who uses the schema imports all of it from here
client_schema  its tables about clients: listeners, TLS, AUTH, names, networks, limits, timeouts
manifest_schema  plugin.toml, a plugin's manifest
next_hop_schema  transports to other servers, kind "smtp" and "lmtp"; next_hop_checks: can they be reached,
               and do they keep their secrets?
plugin_schema  an entry in plugins.d, and the PluginConfig that it and the manifest become
table          what the structs are made of: base class, ranges
units          `5s`, `64MiB`
addresses      addresses and networks as they are written
domains        names of domains, and the one form in which two are compared
lines          on which line of the text a key stands
problems       what is wrong: file, line, table, key, rule, value, nearest valid key
later          what the design has and this version has not; refused by name, not as "unknown"
reader         one TOML table into one struct, going on after each problem
checking       what a check works with; looks at files that are named
checks         contradictions between keys that are fine one by one; client_checks those about clients,
               auth_checks those about AUTH, plugin_checks those about plugins, report_checks [reports]
manifest       plugin.toml (its author's): what a plugin says about itself
settings       what the value of a plugin's setting may be
wants          which of its wants hold with the settings it is given
capabilities   the same for those of the world beside the mail: dns, state, connect, threads
requirements   versions of Python and distributions it needs, and whether they are there
installed      what an interpreter's environment has: distributions, plugins as packages
entry          plugins.d/NN-name.toml (the admin's) and the manifest into a PluginConfig
grants         is every want granted, and do scope and failure policy fit? capability_grants: those of
               capabilities; limits: which limits hold
plainly        what a plugin may do, in words that need no manual
differences    what a new version of a plugin wants that the old one did not
groups         plugins that share a sandbox into one PluginConfig
switched       what manifest and entry make of a plugin, whatever its kind
stock          where the plugins and the sample configuration that come with forkd lie
qmail          what qmail's control files say, in our settings; qmail_files reads them, qmail_merge joins them
               with forkd.toml, qmail_lists makes a plugin's entry of some, qmail_toml writes them as one,
               qmail_known: what does the same as the others
load           files in, LoadedConfig out
show           LoadedConfig out again, as TOML or JSON, secrets hidden
recipients     which recipients exist and how they are routed; shared by worker (550) and qmgr (route)
routes         which mail goes another way than its domain's: the patterns of [route], first match;
               route_checks: do they fit the rest?
aliases        the aliases files: which addresses a recipient stands for; alias_checks: do they fit the rest?
expansion      the table of recipients with the aliases in front of it: what a worker asks at RCPT
where          where mail to an address goes, and why there
folding        when two local parts are the same mailbox

Promises: load() returns something everybody may use without asking again (absolute paths, names
resolved, ranges held), or raises one ConfigError with *all* problems of *all* files. Nothing here
starts or creates anything; files that are named (certificates, lists, sockets) are looked at and not
read, but for aliases.files, tls_ca and password_file of next hops (are they such?), and the control files in
server.qmail_control. Reading the same files twice gives equal values.
"""
