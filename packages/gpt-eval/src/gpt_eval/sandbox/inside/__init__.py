"""What runs beside a generated program, in interpreters that see this folder and the standard library only.

Imports nothing of gpt_eval: `execute` starts `warden` by path, `warden` starts `worker` and `checker` in the jail.
"""
