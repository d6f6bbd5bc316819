"""Model repositories at a distance: object stores, mirrored into folders. This room knows no model and no version."""
