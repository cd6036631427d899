"""The ways to compute `gpt_kernels.attention`, one a file."""
