"""`python -m exlab_watch_agent`."""

from exlab_watch_agent.cli.main import main

if __name__ == "__main__":
    main()
