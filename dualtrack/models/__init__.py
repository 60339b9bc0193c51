"""MLflow 3's logged models for a primary that knows none: kept here, their files below the run they came from."""
