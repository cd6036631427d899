"""Published collections of benchmarks: their tasks, settings, baselines, and how one number is made of them."""
