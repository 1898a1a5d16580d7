"""exlab-watch-agent: proves, repairs and only then frees a laboratory's run folders."""

from importlib.metadata import version

__version__ = version("exlab-watch-agent")
