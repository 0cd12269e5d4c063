"""Prepared datasets on a worker: made from an upload, kept in the store, laid out in the cache for runners."""
