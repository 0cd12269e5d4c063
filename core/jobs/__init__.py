"""The deeds of the domain, one file each; every write is one short transaction."""
