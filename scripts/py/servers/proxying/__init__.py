"""The proxy's own process: `python -m servers.proxying` (`servers/proxy.py` starts it and gives orders).

It passes connections on to one server, as bytes or as HTTP requests, over a line with a length and a width,
and does wrong what it is told to do wrong.
"""
