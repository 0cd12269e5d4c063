"""The operations of the domain on jobs. Every write is one short transaction."""
