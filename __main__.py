"""Run the command line: ``python -m numbert``."""

import sys

from .engine.cli import main

sys.exit(main())
