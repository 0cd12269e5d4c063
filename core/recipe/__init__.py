"""What to train and how, as data: frozen, strict, torch-free."""
