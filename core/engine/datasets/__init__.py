"""A materialised dataset on the device: split, standardised, and shuffled in every epoch."""
