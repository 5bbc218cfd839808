"""Configuration: from TOML text to frozen values everybody can trust.

    file ── lines (where is each key?) ──┐
    text ── tomllib ── reader ───────────┴─> schema structs ── checks ──> LoadedConfig
                         │                                     │
                         └──── problems, all of them ──────────┘──> ConfigError

schema      one struct per table: every key, its default, the reason for it, its range
units       `5s`, `64MiB`
lines       on which line of the text a key stands
problems    what is wrong: file, line, table, key, rule, value, nearest valid key
later       what the design has and this version has not; refused by name, not as "unknown"
reader      one TOML table into one struct, going on after each problem
checks      contradictions between keys that are fine one by one
manifest    plugin.toml (its author's) and plugins.d/NN-name.toml (the admin's) into a PluginConfig
stock       where the plugins and the sample configuration that come with forkd lie
load        files in, LoadedConfig out
show        LoadedConfig out again, as TOML or JSON
recipients  which recipients exist and how they are routed; shared by worker (550) and qmgr (route)

Promises: load() returns something everybody may use without asking again (absolute paths, names
resolved, ranges held), or raises one ConfigError with *all* problems of *all* files. Nothing here
starts, opens or creates anything; reading the same files twice gives equal values.
"""
