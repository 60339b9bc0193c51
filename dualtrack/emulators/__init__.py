"""Stand-ins for the two clouds in front of a real `mlflow server`, for the demo and the tests."""
