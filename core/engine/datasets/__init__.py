"""A materialised dataset on the device: split, standardised, and put in order epoch by epoch."""
