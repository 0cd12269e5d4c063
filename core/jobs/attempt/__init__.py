"""One attempt in the database: state, fence, heartbeat, finish, and the reconciler."""
