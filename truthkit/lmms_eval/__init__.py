"""truthkit as a model of lmms-eval: `python -m lmms_eval --model truthkit --tasks pope ...`."""
