"""What every engine of the tests is told."""

SMALL = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 64,
    "block_size": 32,
    "disable_log_stats": True,
}
