"""The harness's own command line, in which `--model truthkit` is known."""

from __future__ import annotations

import sys

from truthkit.errors import TruthkitError


def main() -> None:
    """Run `lm-eval` with the arguments of this process."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError:
        sys.exit('truthkit: error: lm-evaluation-harness is not installed; pip install "truthkit[lm-eval]".')

    import truthkit.lm_eval.model  # registers it  # noqa: F401

    try:
        cli_evaluate()
    except TruthkitError as error:
        sys.exit(f"truthkit: error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
