"""Tree ensembles: XGBoost with our own gradients, LightGBM, CatBoost, random forest."""
