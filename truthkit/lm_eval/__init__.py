"""truthkit as a model of lm-evaluation-harness: `python -m truthkit.lm_eval run --model truthkit ...`."""
