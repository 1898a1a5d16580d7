"""A seeded simulator of the real core, engine, handlers and store over a world in memory. Begin in simulation.py."""
