"""Questions of the lecture, asked of the data at hand; whatever comes out is reported."""
