"""Run the command line: ``numbert``, or ``python -m numbert``."""

import sys


def main() -> int:
    """Run the command line and return its exit code; 130 when it is interrupted, be it while modules are imported."""
    try:
        from .engine.tools.cli import main as run

        return run()
    except KeyboardInterrupt:
        print(f"{__package__}: interrupted", file=sys.stderr)
        return 130  # what shells report of a program that SIGINT ended


if __name__ == "__main__":
    sys.exit(main())
