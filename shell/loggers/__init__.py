"""Where logged values go besides events.jsonl."""
