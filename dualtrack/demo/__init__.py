"""Two emulated workspaces, a real training run through the proxy, the comparison."""
