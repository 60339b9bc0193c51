"""What operators and their tools see of the running proxy, on a listener of its own; nothing here serves MLflow."""
