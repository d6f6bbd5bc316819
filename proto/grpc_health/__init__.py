"""Parent of the health protocol's version 1; the path is part of the name that its descriptor registers."""
