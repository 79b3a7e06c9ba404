"""Entry point of `python -m matlib`."""

import sys

from matlib.cli import main

sys.exit(main())
