"""Networks. A spec names its builder by import string: build(spec, facts) -> torch.nn.Module, see builders.py."""
