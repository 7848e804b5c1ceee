"""`python -m truthkit.cli`, for where the console script is not on the path."""

import sys

from truthkit.cli import main

sys.exit(main())
