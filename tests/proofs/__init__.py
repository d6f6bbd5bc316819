"""Small systems of ours in every order of events: what holds for all of them."""
