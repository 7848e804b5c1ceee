"""truthkit as a model of Inspect: `inspect eval task.py --model truthkit/smollm2 -M decoder=dola`."""
