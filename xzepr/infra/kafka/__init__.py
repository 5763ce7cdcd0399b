"""Kafka as the relay needs it: transactions that end, topics that fit, and a state that is read to its end."""
