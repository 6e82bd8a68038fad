"""Names and raw values of environment variables. Pure: `settings` reads them."""
