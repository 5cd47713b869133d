"""What a user asks of `certmix certify`, with noise and without, validated once.  No torch."""
