"""Configuration, models, training loop, checkpoints, monitoring and generation for GPT training.

The public API is that of the subpackages; each stands for one subject and imports only what it needs:

    gpt_core.config       load_config, Component, Factory, ConfigError
    gpt_core.models       GPT, GPTConfig, gpt (factory), presets, count_parameters; .plugins, .convert
    gpt_core.training     train, evaluate, losses, scalers, hooks, TrainState, ModelWithLoss; .run for whole runs
    gpt_core.checkpoint   load_model, find_checkpoint, save_model; .training_state to save and resume
    gpt_core.monitor      FLOPs, MFU, memory, gradients, sinks, reports, plots, read_run
    gpt_core.generate     Generator, generate, stream, KVCache, Sampling
    gpt_core.distributed  Distributed and distributed(): the processes of a run
"""
