"""The relay's interface to Kafka: producers, topics and the state topic, with a time limit on every call."""
