"""The manual pages: forkd(8), forkd.toml(5), forkd-plugin(7), written from what the program itself says.

    python -m tools.manual [FOLDER]     (make manual) writes them, to docs/man where no folder is named

What the command line, the schema, the log, the exit statuses or the SDK know is taken from there and never
written down a second time: a key has its words where it is declared, so that a page cannot tell another
story than the program. What is written here is only what no table knows: what forkd is, signals, files.

roff      pieces of text into man(7) source: paragraphs, lists, tables of terms; escapes
words     docstrings, the way they are written here, into such pieces
source    docstrings that only the source has: of fields, of attributes, of functions
schema    a configuration table into terms: key, type, range, default, reason
commands  the command line: usage, help and options of every command
events    the log's lines
roles     what each role may ask a running forkd
daemon, settings, plugin   the pages, one each

tests/manual holds the pages against mandoc and man, and those that are committed against fresh ones.
"""
