"""The command line, as ``python -m dataaudit``."""

import sys

from dataaudit.cli import main

sys.exit(main())
