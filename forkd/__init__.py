"""forkd: a pre-forking SMTP daemon whose plugins cannot hurt anybody but their own session."""

__version__ = "0.1.0"
