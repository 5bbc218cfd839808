"""PROCESS anvil: what does each client do, over all workers, now and in the last minute?

main.py    the process: workers' connections, questions and answers
counts.py  pure: the counters

After Postfix's anvil(8). Counted are sessions and connections, and, where the configuration limits their
rate, messages, recipients and failed AUTH: per client (an IPv4 address or IPv6 /64), per network, per
account. Whose limit is reached the worker decides, anvil only counts. A worker asks once per connection
and tells once at its end; once more per message, recipient or AUTH only where there is such a rate.

When a worker's socket closes, the sessions it had are forgotten, so a killed worker leaves nobody
connected. While anvil is away each worker applies limit / workers (worker/admission.py, rates.py), and
anvil starts again from zero: for that time a client may have up to twice its limit. That is accepted and
the reason why anvil keeps no file.
"""
