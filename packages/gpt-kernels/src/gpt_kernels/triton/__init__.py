"""The fast versions, one file per operation: Triton kernels behind torch custom ops with fakes and gradients.

Nothing here is imported by `import gpt_kernels`: `ops` imports a module of this folder when it first needs it.
"""
