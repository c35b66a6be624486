"""Cross-fitting of estimators as cached tasks: prepare, fit, score, tune, warm start."""
