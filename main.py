"""Runs the connector; the image's entry point."""

from source_truto_segments.run import run

if __name__ == "__main__":
    run()
