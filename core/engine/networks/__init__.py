"""The networks that model specs name by import string: build(spec, facts) -> a torch.nn.Module, see builders.py."""
