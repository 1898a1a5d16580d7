"""`python -m exlab_watch_agent`, and what the command `exlab-watch-agent` begins with."""

from __future__ import annotations

import signal


def main() -> None:
    """Run one command. Until its modules are loaded, Ctrl-C ends the process without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from exlab_watch_agent.cli.main import main as run_command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command()


if __name__ == "__main__":
    main()
