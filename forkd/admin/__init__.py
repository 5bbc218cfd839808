"""PROCESS admin: answers `forkd status`, `stop`, `queue`, `explain`, and tidies up when master was killed.

main.py      the process: what it opens, the clean-up
control.py   the control socket: connections, and who may have one
accepting.py whoever comes to either socket, so many at a time
access.py    who asks, and which of three roles he has
rows.py      what a request is: arguments, the role it needs, who answers, what the audit says
requests.py  the table of requests; what is not in it is refused. Its rows: requests_service.py and others
http.py      answers over HTTP: the table of paths
exposition.py  /metrics: what all processes have counted, added up; families.py: as Prometheus reads it
traces.py    what happened to sessions and messages, for `forkd explain`; trace_file.py: SQLite
peers.py     whom it asks in turn: master over its channel, qmgr over its socket
workers.py   likewise, workers, over connections that they open
prober.py    is this forkd ready? It tries (probe.py), readiness.py judges, health.py says so over HTTP

The protocol of the control socket (STREAM): one JSON object per line there, one per line back, in order.

    {"request": "status"}                        {"ok": true, "result": {…}}
    {"request": "stop", "mode": "drain"}         {"ok": false, "error": "…"}, perhaps with "away": true
    {"request": "queue", "act": "list", "limit": 100, "after": ""}
    {"request": "explain", "id": "HOFUBH6H4VPC93W1"}

Who asks is taken from the socket (SO_PEERCRED), never from the request; every act is logged with it, with
what it reached and the filter it was chosen by.
"""
