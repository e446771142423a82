"""Which packets of a cluster get from which host to which host, and where the others are lost."""

__version__ = "0.1.0"
