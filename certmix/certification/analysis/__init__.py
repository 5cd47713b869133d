"""What finished certifications and published logs are asked afterwards; nothing is sampled here."""
