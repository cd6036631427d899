"""One file per operation: the plain PyTorch definition."""
