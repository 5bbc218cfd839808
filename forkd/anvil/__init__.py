"""PROCESS anvil: how many connections has each client, over all workers, and how many in the last minute?

main.py    the process: workers' connections, questions and answers
counts.py  pure: the counters

After Postfix's anvil(8). A worker asks once per connection and tells once at its end; when a worker's
socket closes, all that it had is forgotten, so a killed worker leaves nothing counted. While anvil is
away each worker applies limit / workers (worker/admission.py), and anvil starts again from zero: for
that time a client may have up to twice its limit. That is accepted and the reason why anvil keeps no file.
"""
