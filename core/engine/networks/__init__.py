"""The networks that model specs name by import string: build(spec, facts) -> torch.nn.Sequential."""
