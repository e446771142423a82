"""
The program that runs on a probed host: standard library only, in the syntax of Python 3.6.

Its source is streamed over stdin to the host's interpreter; requests and answers are JSON lines on stdin and
stdout. It opens no port to control it, writes nothing to disk, and ends when its stdin closes. It knows verbs
(facts, arm, listen, fire, connect, conntrack, counters, collect, bye; for a check: inspect, bye), not
protocols: what a BGP session is, only the coordinator knows.
"""
