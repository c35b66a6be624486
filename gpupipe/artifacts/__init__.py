"""OUT: its layout, manifest, published models, summary, and how they are loaded again."""
