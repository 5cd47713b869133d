"""From data and two models to certified-accuracy tables: by noise, without it, and from what is stored."""
