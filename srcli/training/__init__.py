"""Training the networks as their papers do, and faster."""
