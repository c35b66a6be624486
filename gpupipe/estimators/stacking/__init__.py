"""The meta-learner that combines the other estimators."""
